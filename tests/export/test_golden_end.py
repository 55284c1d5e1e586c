"""The end of a video in golden steps: artifacts with a wrong end are caught, and packs keep it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import pipeline
from clipstep.export.golden_faults import END_IGNORED, undetected_faults
from clipstep.export.golden_steps import record_golden
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.step import Step, program_of
from clipstep.network.preprocess import normalise
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Flush
from clipstep.runtime.golden import GoldenErrors, GoldenSteps, ParityError, flush_points
from clipstep.runtime.synthetic_frames import synthetic_subclips
from clipstep.training.run import Run, RunInfo

Cli = Callable[..., tuple[int, str, str]]
Rehash = Callable[..., Bundle]
CLASSES = ("a", "b", "c")
MEAN, STD = (104.0, 101.0, 97.0), (58.0, 57.0, 59.0)


class Delayed(nn.Module):
    """Two kernels that need later frames: one frame, then two at half the rate; a delay of 6 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, (1, 2, 2), 1),
            nn.ReLU(),
            nn.MaxPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)),
            nn.Conv3d(8, 8, (5, 1, 1), 1, (2, 0, 0)),
            nn.Sigmoid(),
        )
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.layers(frames).mean(dim=(2, 3, 4)))


class Ignores(Step):
    """Steps that are never told that the video has ended: the mask of its end is dropped."""

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        *outputs, _ = super().forward(frames, *states[:-1], states[-1] * 0)
        return *outputs, states[-1] + states[-1].clamp(0, 1)


class Early(Step):
    """Steps whose mask of the end is two frames off: they count one step more."""

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        *outputs, _ = super().forward(frames, *states[:-1], states[-1] + states[-1].clamp(0, 1))
        return *outputs, states[-1] + states[-1].clamp(0, 1)


@pytest.fixture(scope="module")
def delayed_run() -> Run:
    torch.manual_seed(4)
    info = RunInfo("delayed", {"frames": 4}, CLASSES, MEAN, STD, 25.0, "0" * 64)
    return Run(Delayed().eval(), info, torch.from_numpy(synthetic_subclips(8, 4, 16, 16)), "synthetic")


@pytest.fixture(scope="module")
def delayed_bundle(delayed_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("delayed") / "delayed.clipstep"
    export_network(delayed_run.spec("delayed"), out, ExportOptions(("onnx",), stream=2))
    return out


@pytest.fixture
def earlier_bundle(delayed_bundle: Path, tmp_path: Path, rehash: Rehash) -> Path:
    """A bundle whose golden steps hold no flushed videos, as an earlier clipstep wrote it."""
    path = Path(shutil.copytree(delayed_bundle, tmp_path / "earlier.clipstep"))
    replace(GoldenSteps.of(Bundle.open(path)), flushed={}).save(path / "golden.safetensors")
    rehash(path)
    return path


def _whole(run: Run, golden: GoldenSteps, steps: int) -> np.ndarray:
    """The logits of the eager clip network on the frames of a number of golden steps."""
    frames = np.concatenate([golden.subclips[step % len(golden.subclips)] for step in range(steps)])
    with torch.no_grad():
        return run.network(normalise(torch.from_numpy(frames)[None], MEAN, STD))[0].numpy()


def test_the_flushed_videos_are_those_of_the_clip_network(delayed_bundle: Path, delayed_run: Run) -> None:
    golden = GoldenSteps.of(Bundle.open(delayed_bundle))
    assert list(golden.flushed) == [1, 5, 16] and "flushed after 1, 5, 16" in repr(golden)
    for steps, logits in golden.flushed.items():
        np.testing.assert_allclose(logits, _whole(delayed_run, golden, steps), atol=1e-5)
    assert np.abs(golden.flushed[16] - golden.logits[15]).max() > 1e-3  # They are not those of the last step.


@pytest.mark.parametrize(
    ("target", "wrong"), [("onnx", Ignores), pytest.param("onnx", Early, marks=pytest.mark.heavy), ("executorch", Ignores), ("coreml", Early)]
)
def test_an_artifact_with_another_end_is_refused_at_export_and_caught_by_verify_alone(
    target: str, wrong: type[Step], delayed_run: Run, tmp_path: Path, clipstep: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step before the end is right. Export refuses all targets by the same check."""

    class Wrong(pipeline.Graphs):
        def __init__(self, program: Any) -> None:
            step = program.step
            super().__init__(replace(program, step=wrong(step.network, step.mean, step.std).eval()))

    monkeypatch.setattr(pipeline, "Graphs", Wrong)
    out, ask = tmp_path / "wrong.clipstep", ExportOptions((target,), stream=2)
    if target == "onnx":
        with pytest.raises(ParityError, match=r"step\.onnx: logits are off where a video of 1 step is flushed; got an error of .*; expected at most"):
            export_network(delayed_run.spec("delayed"), out, ask)
        assert not out.exists()
    monkeypatch.setattr(pipeline, "check_artifact", lambda *_: GoldenErrors(16, 0.0, 0.0))
    export_network(delayed_run.spec("delayed"), out, ask)
    code, _, err = clipstep("verify", out)
    assert code == 2 and "logits are off where a video of 1 step is flushed" in err


def test_verify_prints_which_ends_it_checked(delayed_bundle: Path, clipstep: Cli) -> None:
    code, out, err = clipstep("verify", delayed_bundle)
    assert (
        (code, err) == (0, "")
        and "16 steps and a reset (and videos flushed after 1, 5, 16 of them) against the golden steps" in out
        and "not checked" not in out
    )
    assert json.loads(clipstep("verify", delayed_bundle, "--json")[1])["flushed_after_steps"] == [1, 5, 16]
    assert ", flushed after 1, 5, 16, " in clipstep("inspect", delayed_bundle)[1]


def test_an_earlier_bundle_verifies_with_a_line_that_its_end_is_not_checked(
    earlier_bundle: Path, delayed_run: Run, clipstep: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = clipstep("verify", earlier_bundle)
    assert (code, err) == (0, "") and "not checked: the end of a video, because these golden steps hold no flushed one" in out
    assert json.loads(clipstep("verify", earlier_bundle, "--json")[1])["flushed_after_steps"] == []
    monkeypatch.setattr("clipstep.export.reference.reference_network", lambda bundle, network: delayed_run.spec())
    code, out, err = clipstep("verify", earlier_bundle, "--run", "RUN")
    assert (code, err) == (0, "") and "not checked" not in out and "videos flushed after 1, 5, 16 of them" in out


def test_flushed_logits_that_are_not_the_networks_are_caught(
    delayed_bundle: Path, delayed_run: Run, tmp_path: Path, rehash: Rehash, clipstep: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(delayed_bundle, tmp_path / "copy.clipstep"))
    golden = GoldenSteps.of(Bundle.open(path))
    replace(golden, flushed={**golden.flushed, 5: golden.flushed[5] + np.float32(0.01)}).save(path / "golden.safetensors")
    rehash(path)
    assert "logits are off where a video of 5 steps is flushed" in clipstep("verify", path)[2]
    monkeypatch.setattr("clipstep.export.reference.reference_network", lambda bundle, network: delayed_run.spec())
    assert "golden logits of a flushed video of 5 steps are not the eager network's" in clipstep("verify", path, "--run", "RUN")[2]


@pytest.mark.parametrize(("kind", "after"), [("full", [1, 5, 16]), ("short", [1, 5]), ("synthetic", [1, 5, 16])])
def test_a_pack_keeps_the_flushed_videos(kind: str, after: list[int], delayed_bundle: Path, delayed_run: Run, tmp_path: Path, clipstep: Cli) -> None:
    out = tmp_path / "delayed.clipstep.zip"
    code, _, err = clipstep("pack", delayed_bundle, "--for", "python", "--golden", kind, "--out", out)
    assert (code, err) == (0, "")
    with Bundle.open(out) as bundle:
        golden = GoldenSteps.of(bundle)
    assert list(golden.flushed) == after and len(golden.logits) == after[-1]
    for steps, logits in golden.flushed.items():
        np.testing.assert_allclose(logits, _whole(delayed_run, golden, steps), atol=1e-4)
    assert clipstep("verify", out)[0] == 0


def test_the_eager_network_records_ends_of_synthetic_steps(
    earlier_bundle: Path, delayed_run: Run, tmp_path: Path, clipstep: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact of an earlier bundle records none, because its own end was never verified."""
    monkeypatch.setattr("clipstep.export.reference.reference_network", lambda bundle, network: delayed_run.spec())
    for options, after in (((), []), (("--run", "RUN"), [1, 5, 16])):
        out = tmp_path / f"{len(options)}.clipstep.zip"
        assert clipstep("pack", earlier_bundle, "--for", "python", "--golden", "synthetic", "--out", out, *options)[0] == 0
        with Bundle.open(out) as bundle:
            assert list(GoldenSteps.of(bundle).flushed) == after


def test_an_ignored_end_is_undetected_in_a_network_on_which_the_end_has_no_effect(delayed_run: Run) -> None:
    program = program_of(delayed_run.spec(), 2)
    golden = record_golden(program, program.subclips(delayed_run.sample.flatten(0, 1)))
    assert END_IGNORED not in undetected_faults(program, golden)
    blind = replace(program, step=Ignores(program.step.network, program.step.mean, program.step.std).eval())
    assert END_IGNORED in undetected_faults(blind, record_golden(blind, torch.from_numpy(golden.subclips)))


@pytest.mark.parametrize(
    ("flush", "delay", "steps", "points"),
    [
        (None, 0, 16, ()),
        (Flush(state="ended", steps=3, min_frames=2), 6, 16, (1, 5, 16)),
        (Flush(state="ended", steps=3, min_frames=2), 0, 16, (1, 4, 16)),
        (Flush(state="ended", steps=3, min_frames=13), 6, 16, (7, 16)),
        (Flush(state="ended", steps=3, min_frames=2), 60, 16, (1, 16)),
        (Flush(state="ended", steps=3, min_frames=40), 6, 16, ()),
        (Flush(state="ended", steps=3, min_frames=40), 6, 20, (20,)),
    ],
)
def test_where_videos_are_flushed(flush: Flush | None, delay: int, steps: int, points: tuple[int, ...]) -> None:
    assert flush_points(flush, 2, delay, steps) == points
