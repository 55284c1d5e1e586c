"""Clip networks whose streams have a delay or a window, and the references for their bundles."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export.mlprogram import MlProgram
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.network.preprocess import normalise
from clipstep.network.videos import read_subclips
from clipstep.runtime import Bundle, StepModel
from clipstep.runtime.engines import load_engine
from clipstep.training.run import Run, RunInfo

CLASSES = ("fight", "nofight", "other")
MEAN, STD = (104.0, 101.0, 97.0), (58.0, 57.0, 59.0)
SIZE = 16


class Clip(nn.Module):
    """A clip network whose features can be computed alone."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.features(frames).mean(dim=(2, 3, 4)))


def _run_of(network: nn.Module, clip: Path) -> Run:
    info = RunInfo("clip", {"frames": 4, "size": SIZE}, CLASSES, MEAN, STD, 25.0, "0" * 64)
    return Run(network.eval(), info, read_subclips(clip, 4, SIZE)[:8])


@torch.no_grad()
def _eager(run: Run, frames: np.ndarray) -> np.ndarray:
    return run.network(normalise(torch.from_numpy(frames)[None], MEAN, STD))[0].numpy()


def _noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def _engines(bundle: Path) -> Iterator[StepModel]:
    for artifact in Bundle.open(bundle).manifest.artifacts:
        if artifact.precision == "float32":
            path = bundle / artifact.file
            coreml = artifact.target == "coreml"
            engine = MlProgram(path) if coreml else load_engine({"onnx": "onnxruntime"}.get(artifact.target, artifact.target), path, 1)
            yield StepModel(Bundle.open(bundle).manifest.interface(artifact.input_dtype), engine, artifact.file)


Eager = Callable[[Run, np.ndarray], np.ndarray]


@pytest.fixture(scope="session")
def run_of() -> Callable[[nn.Module, Path], Run]:
    """Return a function that makes a run of a network, in eval mode, with subclips of a real video."""
    return _run_of


@pytest.fixture(scope="session")
def eager() -> Eager:
    """Return a function that computes the eager clip network's logits on a whole video, `(n, H, W, 3)` uint8."""
    return _eager


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Return a function that makes a video of a number of frames of noise."""
    return _noise


@pytest.fixture(scope="session")
def engines() -> Callable[[Path], Iterator[StepModel]]:
    """Return a function that loads each float32 artifact of a bundle in its engine."""
    return _engines


@pytest.fixture(scope="session")
def delayed_run(clip: Path) -> Run:
    """Looks ahead by 1 frame, then by 2 of half the rate, then by 3: a delay of 12 frames; no video is too short for it."""
    torch.manual_seed(9)
    layers = (
        nn.Conv3d(3, 8, 3, (1, 2, 2), 1),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.MaxPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)),
        nn.Conv3d(8, 8, (5, 1, 1), 1, (2, 0, 0)),
        nn.Sigmoid(),
        nn.Conv3d(8, 8, (7, 1, 1), 1, (3, 0, 0)),
        nn.Tanh(),
    )
    return _run_of(Clip(*layers), clip)


@pytest.fixture(scope="session")
def delayed_bundle(delayed_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("delayed") / "delayed.clipstep"
    export_network(delayed_run.spec("delayed"), out, ExportOptions(stream=2))
    return out


@pytest.fixture(scope="session")
def framewise_run(clip: Path) -> Run:
    """Each frame alone, then the mean over time: a window of it is exactly the clip network on the newest frames."""
    torch.manual_seed(10)
    return _run_of(Clip(nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU()), clip)


@pytest.fixture(scope="session")
def windowed_bundle(framewise_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("windowed") / "windowed.clipstep"
    export_network(framewise_run.spec("framewise"), out, ExportOptions(stream=2, window=2.0))
    return out
