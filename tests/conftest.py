"""A small run with a real clip's frames, exported once to every target, for the tests of export and benchmarks."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from clipstep.benchmarks.records import ColdStart, Configuration, Record, this_device
from clipstep.export.pipeline import export_network
from clipstep.export.step import StepProgram, program_of
from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.cli import main
from clipstep.training.models import build, shufflenet3d_v1, slowfast_causal_shufflenet, slowfast_fully_causal
from clipstep.training.run import Run, RunInfo, load_run, save_run

VIDEOS = Path(__file__).parents[1] / "training/demo/fight/videos"
CLASSES = ("fight", "nofight", "other")


def _randomise(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 0.4)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.5)
    return network.eval()


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Give batch norms random statistics, so that none of them is nearly the identity; return the network in eval mode."""
    return _randomise


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """The networks of ShuffleNet units have every kind of unit, and a quarter as many: they are trained and exported in a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (slowfast_causal_shufflenet, slowfast_fully_causal, shufflenet3d_v1):
            patch.setattr(module, "STAGE_UNITS", (2, 1, 1))
        yield


@pytest.fixture(scope="session")
def clip() -> Path:
    """A real video."""
    return VIDEOS / "Fight/v_Fight_g02_c01.mp4"


@pytest.fixture(scope="session")
def clip_at_25() -> Path:
    """A real video of 25 frames a second, as the small run and most networks of the tests have; `clip` has 20, which `clipstep run` says."""
    return VIDEOS / "Fight/v_Fight_g13_c01.mp4"


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """A run of a network of 4 frames of 32x32 and three classes, with random weights and a real clip's subclips."""
    torch.manual_seed(7)
    config = {"classes": len(CLASSES), "frames": 4, "size": 32}
    network = _randomise(build("slowfast_causal_shufflenet", config))
    info = RunInfo("slowfast_causal_shufflenet", config, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0)
    folder = tmp_path_factory.mktemp("run") / "small"
    save_run(folder, Run(network, info, read_subclips(clip, 4, 32)[:5]))
    return folder


@pytest.fixture(scope="session")
def run(run_folder: Path) -> Run:
    return load_run(run_folder)


@pytest.fixture(scope="session")
def program(run: Run) -> StepProgram:
    return program_of(run.spec())


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory, run: Run, run_folder: Path) -> Path:
    """The run exported to every target, by the first of pytest's processes that needs it. Tests that change it work on a copy."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundle/small.clipstep"
    out.parent.mkdir(exist_ok=True)
    with (out.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            export_network(run.spec(run_folder), out)
    return out


@pytest.fixture
def bundle_copy(tmp_path: Path, bundle_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(bundle_path, tmp_path / "copy.clipstep"))


@pytest.fixture
def record(bundle_path: Path) -> Record:
    """A record of the bundle's first artifact, with a single step of 10 ms."""
    manifest = Bundle.open(bundle_path).manifest
    artifact = manifest.artifacts[0]
    configuration = Configuration(
        name=artifact.file, target=artifact.target, form=artifact.form, precision="float32", engine="onnxruntime", threads=1, file=artifact.file
    )
    return Record(
        bundle=bundle_path.name,
        manifest_sha256="a" * 64,
        artifact_sha256=artifact.sha256,
        weights_sha256=None,
        configuration=configuration,
        cold_start=ColdStart(load_s=0, first_step_ms=1, threads_used=1, largest_error=0),
        device=this_device(),
        tool_versions={},
        placement={},
        not_delegated=(),
        file_bytes=1,
        subclip_s=0.64,
        peak_memory_bytes=1,
        memory_before_load_bytes=1,
        step_ms=(10,),
    )


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[..., Path]:
    """``write_video(count, path)``: noise of 48x64 pixels, H.264 at 25 fps; or ``(N, H, W, 3)`` uint8 frames instead of ``count``."""

    def write(count: int | np.ndarray, path: str | Path = "written.mp4") -> Path:
        path = tmp_path / path
        frames = np.random.default_rng(count).integers(0, 256, (count, 48, 64, 3), np.uint8) if isinstance(count, int) else count
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def sound_only(tmp_path: Path) -> Path:
    """An MP4 file with half a second of silence and no video stream."""
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def clipstep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; return the exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipstep", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call
