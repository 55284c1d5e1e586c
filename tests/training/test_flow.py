"""Optical flow of known motion; a network of optical flow from training to a bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.network.flow import optical_flow
from clipstep.network.videos import as_channels, read_subclips
from clipstep.runtime import ClipstepError, StepModel
from clipstep.training.data.lists import Clip
from clipstep.training.data.subclips import TrainingVideos
from clipstep.training.explain import explain
from clipstep.training.metrics import top_k_share
from clipstep.training.models import build, slowfast_causal_shufflenet
from clipstep.training.predict import bundle_logits, fused, predict_videos, video_logits
from clipstep.training.run import Run, RunInfo, load_run


def _moving(right: int, down: int, count: int = 6, size: int = 64) -> np.ndarray:
    """Frames of a smooth random texture that moves by whole pixels a frame."""
    texture = np.random.default_rng(0).integers(0, 256, (size + 80, size + 80, 3), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    starts = [(40 - down * index, 40 - right * index) for index in range(count)]
    return np.stack([texture[top : top + size, left : left + size] for top, left in starts])


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, 2), (-4, 1), (2, -5)])
def test_known_motion(right: int, down: int) -> None:
    """20 pixels are 127 steps of the scale; the middle of the frame, where the estimate needs nothing from outside."""
    flow = optical_flow(_moving(right, down))
    assert flow.shape == (6, 64, 64, 2) and flow.dtype == np.uint8
    np.testing.assert_array_equal(flow[0], 128)
    middle = np.median(flow[1:, 16:-16, 16:-16], axis=(1, 2))
    np.testing.assert_allclose(middle, np.broadcast_to([128 + right * 127 / 20, 128 + down * 127 / 20], middle.shape), atol=1)


def test_flow_is_continuous_across_subclips() -> None:
    frames = _moving(3, 0)
    seen = as_channels(torch.from_numpy(frames).reshape(2, 3, 64, 64, 3), 2)
    assert seen.shape == (2, 3, 64, 64, 2)
    np.testing.assert_array_equal(seen.flatten(0, 1).numpy(), optical_flow(frames))
    assert abs(int(seen[1, 0, 32, 32, 0]) - (128 + 3 * 127 / 20)) <= 1


def test_a_mirrored_video_moves_the_other_way(write_video: Callable[..., Path]) -> None:
    path = write_video(_moving(4, 0, 8))
    videos = TrainingVideos([Clip(path, 0)], 8, 64, 2, flip=True)
    means = {round(float(videos[epoch, 0].subclips[0, 1:, 16:-16, 16:-16, 0].float().mean() - 128)) for epoch in range(12)}
    assert any(mean > 10 for mean in means) and any(mean < -10 for mean in means)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ClipstepError, match="no input has that many channels; got 4; expected 3"):
        as_channels(torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8), 4)


def test_two_streams_are_trained_and_evaluated_together(few_videos: Path, tmp_path: Path, clipstep: Callable[..., tuple[int, str, str]]) -> None:
    options = ["--epochs", 1, "--frames", 8, "--size", 48, "--batch-size", 4, "--workers", 0, "--validation", 0]
    for seen in ("rgb", "flow"):
        code, _, err = clipstep("train", few_videos, "--out", tmp_path / seen, "--input", seen, "--architecture", "shufflenet3d_0.5x", *options)
        assert code == 0, err
    rgb, flow = (load_run(tmp_path / seen) for seen in ("rgb", "flow"))
    assert (rgb.info.shape, flow.info.shape) == ((8, 48, 3), (8, 48, 2)) and len(flow.info.mean) == 2
    assert all(abs(mean - 128) < 3 for mean in flow.info.mean)
    assert flow.sample.shape[2:] == (48, 48, 2)
    code, text, err = clipstep("evaluate", tmp_path / "rgb", few_videos, "--with", tmp_path / "flow", "--out", tmp_path / "both")
    assert code == 0, err
    assert "the first alone" in text and "the second alone" in text
    clips = [Clip(few_videos / "videos" / line, int(line.startswith("NoFight"))) for line in (few_videos / "testlist01.txt").read_text().split()]
    quiet = Console(quiet=True)
    each = [
        predict_videos(lambda s, run=run: video_logits(run.network, s, run.info), clips, run.info.shape, run.info.fps, quiet)[0]
        for run in (rgb, flow)
    ]
    summary = json.loads((tmp_path / "both/summary.json").read_text())
    assert summary["top1"] == top_k_share(fused(*each), 1)
    assert [alone["top1"] for alone in summary["each_alone"]] == [top_k_share(one, 1) for one in each]


@pytest.fixture
def flow_run(clip: Path, randomise: Callable[..., torch.nn.Module]) -> Run:
    """A small network with states that sees optical flow, with random weights."""
    torch.manual_seed(5)
    config = {"classes": 3, "frames": 4, "size": 32, "channels": 2}
    network = randomise(build("slowfast_causal_shufflenet", config))
    info = RunInfo("slowfast_causal_shufflenet", config, ("fight", "nofight", "other"), (128.0, 127.0), (9.0, 7.0), 25.0, "0" * 64)
    return Run(network, info, read_subclips(clip, 4, 32, 2)[:5])


@pytest.fixture
def few_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowfast_causal_shufflenet, "STAGE_UNITS", (2, 1, 1))


def test_a_bundle_for_flow(few_units: None, flow_run: Run, clip: Path, tmp_path: Path) -> None:
    """It computes the same as its network, and its stream takes flow and no camera frames."""
    manifest = export_network(flow_run.spec(tmp_path / "run"), tmp_path / "flow.clipstep", ExportOptions(("onnx",))).manifest
    assert (manifest.input.color, manifest.input.shape, manifest.input.mean) == ("flow", (4, 32, 32, 2), (128.0, 127.0))
    subclips = read_subclips(clip, 4, 32, 2)
    with StepModel.load(tmp_path / "flow.clipstep") as model:
        torch.testing.assert_close(bundle_logits(model, subclips), video_logits(flow_run.network, subclips, flow_run.info), atol=1e-4, rtol=0)
        stream = model.stream()
        pushed = [stream.push(frame) for frame in subclips[0].numpy()]
        np.testing.assert_array_equal(pushed[-1].logits, model.step(subclips[0].numpy(), model.initial_states())[0])
        with pytest.raises(ClipstepError, match=r"wrong shape or type; got \(9, 9, 3\) uint8; expected optical flow \(32, 32, 2\) uint8"):
            stream.push(np.zeros((9, 9, 3), np.uint8))


def test_an_explanation_of_flow_is_drawn_on_the_rgb_frames(flow_run: Run, clip: Path) -> None:
    subclips = read_subclips(clip, 4, 32)[:2]
    explanation, _ = explain(flow_run, subclips, 0)
    np.testing.assert_array_equal(explanation.frames, subclips.flatten(0, 1).numpy())
    expected = video_logits(flow_run.network, read_subclips(clip, 4, 32, 2)[:2], flow_run.info).softmax(dim=1)
    np.testing.assert_allclose(explanation.probabilities, expected, atol=1e-6)
