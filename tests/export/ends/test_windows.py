"""Streams without an end: windowed bundles in every engine, and the warning about networks that average over all frames."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.step import program_of
from clipstep.export.stream.averaging import averages_over_all_frames
from clipstep.network.preprocess import normalise
from clipstep.network.videos import read_subclips
from clipstep.runtime import Bundle, StepModel
from clipstep.training.models import build
from clipstep.training.run import Run, RunInfo

CLASSES = ("fight", "nofight", "other")
MEAN, STD = (104.0, 101.0, 97.0), (58.0, 57.0, 59.0)
SIZE = 16
Eager = Callable[[Run, np.ndarray], np.ndarray]
Noise = Callable[..., np.ndarray]
Engines = Callable[[Path], Iterator[StepModel]]
RunOf = Callable[[nn.Module, Path], Run]
Command = Callable[..., tuple[int, str, str]]


def _scenes(seconds: float, then: float) -> np.ndarray:
    """One scene for a number of seconds at 25 frames a second, with a little noise, then another."""
    count, rest = round(25 * seconds), round(25 * then)
    video = np.concatenate([np.full((count, SIZE, SIZE, 3), (200, 30, 30)), np.full((rest, SIZE, SIZE, 3), (20, 60, 220))])
    return (video + np.random.default_rng(1).integers(-20, 20, video.shape)).astype(np.uint8)


def _predictions(model: StepModel, video: np.ndarray) -> dict[int, np.ndarray]:
    stream = model.stream()
    return {p.frames_seen: p.logits for p in map(stream.push, video) if p is not None}


def test_a_window_predicts_the_new_scene_and_the_mean_over_all_frames_does_not(
    windowed_bundle: Path, framewise_run: Run, clipstep: Command, tmp_path: Path, eager: Eager, engines: Engines
) -> None:
    """After 30 s of one scene and 2 s of another, in every target: the window is the clip network on the newest 50 frames."""
    manifest = Bundle.open(windowed_bundle).manifest
    assert (manifest.temporal_average, manifest.window_frames, manifest.delay_frames, manifest.flush) == ("sliding_window", 50, 0, None)
    video = _scenes(30, 2)
    new = eager(framewise_run, video[-50:])
    for model in engines(windowed_bundle):
        found = _predictions(model, video)
        for seen in (2, 10, 50, 52, 700, 750, 752, 776, 800):  # The window fills, is full, and slides into the new scene.
            expected = eager(framewise_run, video[max(0, seen - 50) : seen])
            np.testing.assert_allclose(found[seen], expected, atol=1e-4, err_msg=f"{model.description}, {seen} frames")
        model.close()
    export_network(framewise_run.spec("framewise"), tmp_path / "all.clipstep", ExportOptions(("onnx",), stream=2))
    assert Bundle.open(tmp_path / "all.clipstep").manifest.temporal_average == "cumulative"
    with StepModel.load(tmp_path / "all.clipstep") as model:
        deaf = _predictions(model, video)
    moved, due = np.abs(deaf[800] - deaf[750]).max(), np.abs(new - deaf[750]).max()
    assert moved < 0.07 * due  # 50 of 800 frames.


def test_a_window_of_a_network_with_a_delay_is_the_mean_of_its_newest_features(delayed_run: Run, tmp_path: Path, noise: Noise) -> None:
    """Features see frames before the window, where the clip network on the window alone has padding; flushed, the last ones see the
    video's end. A stream of 3,000 steps is as exact as a short one."""
    export_network(delayed_run.spec("delayed"), tmp_path / "delayed.clipstep", ExportOptions(("onnx",), stream=2, window=0.8))
    manifest = Bundle.open(tmp_path / "delayed.clipstep").manifest
    assert manifest.window_frames == 20 and manifest.flush is not None
    video = noise(120, seed=4)
    with torch.no_grad():
        features = delayed_run.network.features(normalise(torch.from_numpy(video)[None], MEAN, STD))

        def head(start: int, stop: int) -> np.ndarray:
            return delayed_run.network.head(features[:, :, max(0, start) : stop].mean(dim=(2, 3, 4)))[0].numpy()

        with StepModel.load(tmp_path / "delayed.clipstep") as model:
            stream = model.stream()
            for step in range(3000):
                stream.push(video[step % 2])
            stream.reset()
            found = {p.frames_seen: p.logits for p in map(stream.push, video) if p is not None}
            whole = stream.flush()
        for seen, logits in found.items():
            np.testing.assert_allclose(logits, head(seen // 2 - 6 - 10, seen // 2 - 6), atol=1e-4)
        assert whole is not None
        np.testing.assert_allclose(whole.logits, head(50, 60), atol=1e-4)


@pytest.mark.long
def test_the_causal_preset_takes_a_window(clip: Path, randomise: Callable[[nn.Module], nn.Module], tmp_path: Path, clipstep: Command) -> None:
    """Against the features of all frames at once, kernel after kernel, of which the newest are averaged."""
    torch.manual_seed(6)
    config = {"classes": 3, "frames": 8, "size": 32, "alpha": 2, "beta": 1, "causal": True}
    network = randomise(build("slowfast_causal_shufflenet", config))
    run = Run(network, RunInfo("slowfast_causal_shufflenet", config, CLASSES, MEAN, STD, 25.0, "0" * 64), read_subclips(clip, 8, 32)[:5])
    manifest = export_network(run.spec("causal"), tmp_path / "c.clipstep", ExportOptions(("onnx",), stream=2, window=0.4)).manifest
    assert (manifest.temporal_average, manifest.window_frames) == ("sliding_window", 10)
    frames = run.sample.flatten(0, 1)
    with StepModel.load(tmp_path / "c.clipstep") as model:
        found = _predictions(model, frames.numpy())
    video = normalise(frames[None], MEAN, STD)
    with torch.no_grad():
        means = [network(video[:, :, :seen], *network.initial_states().values())[1] for seen in range(2, len(frames) + 1, 2)]
        size = network.classifier.in_features
        totals = [torch.zeros(1, size), *(past[:, -size - 1 : -1] * past[:, -1:] for past in means)]  # Sums over all frames so far.
        for step in range(1, len(totals)):
            back = max(0, step - 5)
            expected = network.classifier((totals[step] - totals[back]) / (2 * (step - back)))[0]
            np.testing.assert_allclose(found[2 * step], expected, atol=1e-4)
    assert program_of(run.spec(), 2).temporal_average == "cumulative"


class Remembers(nn.Module):
    """A network with a state of its own: `weight(steps so far)` is the share that the newest step has in it."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.head = weight, nn.Linear(3, len(CLASSES))

    def initial_states(self) -> dict[str, Tensor]:
        return {"memory": torch.zeros(1, 3), "steps": torch.zeros(1, 1)}

    def forward(self, frames: Tensor, memory: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = steps + 1
        memory = memory + (frames.mean(dim=(2, 3, 4)) - memory) * self.weight(steps)
        return self.head(memory), memory, steps


@pytest.mark.parametrize(
    ("name", "weight", "deaf"),
    [
        ("the mean over everything", lambda steps: 1 / steps, True),
        ("a mean that starts late", lambda steps: 1 / (steps + 3), True),
        ("a decay", lambda steps: torch.ones_like(steps) * 0.1, False),
        ("a mean, then a decay over ten steps", lambda steps: 1 / steps.clamp(max=10), False),
        ("the newest step alone", lambda steps: torch.ones_like(steps), False),
    ],
)
def test_a_network_that_averages_over_all_frames_is_detected(
    name: str, weight: Callable[[Tensor], Tensor], deaf: bool, clip: Path, run_of: RunOf
) -> None:
    torch.manual_seed(11)
    assert averages_over_all_frames(program_of(run_of(Remembers(weight), clip).spec())) is deaf


def test_the_command_line_warns_and_refuses(clipstep: Command, run_folder: Path, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "framewise.py").write_text(
        "from torch import nn\n\n"
        "def make():\n    return nn.Sequential(nn.Conv3d(3, 8, (1, 3, 3)), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3))\n"
    )
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    monkeypatch.chdir(tmp_path)
    own = ("--model", "framewise:make", "--random-weights", "--labels", "names.txt", "--frames", 4, "--size", 16, "--target", "onnx")
    code, out, err = clipstep("export", *own, "--out", "all.clipstep", "--stream", 2)
    assert (code, err) == (0, "") and "a warning: predictions are a mean over all frames so far" in out and "--window SECONDS" in out
    code, out, err = clipstep("export", *own, "--out", "new.clipstep", "--stream", 2, "--window", 1)
    assert (code, err) == (0, "") and "predictions are the mean over the newest 24 frames, 0.96 s" in out and "all frames so far" not in out
    code, out, _ = clipstep("inspect", "new.clipstep")
    assert code == 0 and "the newest 24 frames" in out
    refused = {
        ("--window", 1): "--window is for a stream; got no --stream; add --stream K",
        ("--window", 0.01, "--stream", 2): "the window is shorter than a step; got 0.01 s; expected at least 0.08 s, 2 frames at 25 a second",
    }
    for options, message in refused.items():
        code, _, err = clipstep("export", *own, "--out", "no.clipstep", *options)
        assert code == 2 and err.startswith(f"error: {message}")
    code, _, err = clipstep("export", *own, "--out", "no.clipstep", "--stream", 25, "--window", 1)
    assert code == 2 and err.startswith("error: a window of one step leaves nothing to remember; got 25 frames; expected a longer window")
    code, _, err = clipstep("export", run_folder, "--out", "no.clipstep", "--stream", 4, "--window", 2)
    assert code == 2 and err.startswith("error: the network has states of its own, among which a window would have to be; got slow_buffer")
    assert not Path("no.clipstep").exists()
