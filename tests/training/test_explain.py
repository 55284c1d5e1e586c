"""Grad-CAM against its definition, and the files that are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional as F

from clipstep.network.preprocess import normalise
from clipstep.network.videos import read_subclips
from clipstep.runtime import read_frames
from clipstep.training.cli import explain_command
from clipstep.training.explain import explain
from clipstep.training.models import ARCHITECTURES, build
from clipstep.training.plots import overlay
from clipstep.training.predict import video_logits
from clipstep.training.run import Run


@pytest.mark.parametrize("label", [0, 2])
def test_heat_is_activations_weighted_by_their_mean_gradient(run: Run, clip: Path, label: int) -> None:
    """By hooks and autograd: ReLU of the sum over channels of (mean gradient times activation), stretched over the subclip."""
    subclips = read_subclips(clip, 4, 32)[:3]
    explanation, explained = explain(run, subclips, label)
    heats, states = [], list(run.network.initial_states().values())
    for subclip in subclips:
        kept: list[torch.Tensor] = []
        layers = [run.network.get_submodule(name) for name in ("slow.stages.11", "fast.stages.11")]
        hooks = [layer.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out)) for layer in layers]
        logits, *following = run.network(normalise(subclip[None], run.info.mean, run.info.std), *states)
        for hook in hooks:
            hook.remove()
        gradients = torch.autograd.grad(logits[0, label], kept)
        heat = torch.zeros(4, 32, 32)
        for activation, gradient in zip(kept, gradients, strict=True):
            weighted = F.relu((gradient.mean(dim=(2, 3, 4), keepdim=True) * activation).sum(dim=1, keepdim=True))
            heat += F.interpolate(weighted, (4, 32, 32), mode="trilinear", align_corners=False)[0, 0].detach()
        heats.append(heat)
        states = [state.detach() for state in following]
    expected = torch.stack(heats)
    assert explained == label and expected.max() > 0
    np.testing.assert_allclose(explanation.heat, (expected / expected.max()).flatten(0, 1).numpy(), atol=1e-5)
    np.testing.assert_allclose(explanation.probabilities, video_logits(run.network, subclips, run.info).softmax(dim=1), atol=1e-6)
    np.testing.assert_array_equal(explanation.frames, subclips.flatten(0, 1).numpy())


def test_unless_told_the_class_that_is_likeliest_at_the_end_is_explained(run: Run, clip: Path) -> None:
    subclips = read_subclips(clip, 4, 32)
    assert explain(run, subclips, None)[1] == int(video_logits(run.network, subclips, run.info)[-1].argmax())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_names_layers_that_still_have_some_resolution(name: str) -> None:
    shapes: list[torch.Size] = []
    with torch.device("meta"):
        network = build(name, {"classes": 5}).eval()
        for layer in ARCHITECTURES[name].explained:
            network.get_submodule(layer).register_forward_hook(lambda _, __, out: shapes.append(out.shape))
        network(torch.zeros(1, 3, 16, 112, 112), *getattr(network, "initial_states", dict)().values())
    assert [shape[3:] for shape in shapes] == [(7, 7)] * len(ARCHITECTURES[name].explained)


def test_overlay_by_hand() -> None:
    """No heat shows the frame; full heat shows 0.3 of it and 0.7 of the map's last colour."""
    frames = np.full((1, 1, 2, 3), 100, np.uint8)
    got = overlay(frames, np.array([[[0.0, 1.0]]], np.float32))
    np.testing.assert_array_equal(got[0, 0, 0], (100, 100, 100))
    np.testing.assert_allclose(got[0, 0, 1], 0.3 * 100 + 0.7 * np.array([252, 255, 164]), atol=1.5)


def _explain(*arguments: Any) -> Any:
    return CliRunner().invoke(explain_command, [str(a) for a in arguments], standalone_mode=False)


def test_a_picture_and_a_video(run_folder: Path, clip: Path, tmp_path: Path) -> None:
    result = _explain(run_folder, clip, "--label", "nofight", "--out", tmp_path / "e")
    assert result.exception is None, result.output
    assert result.output.startswith("nofight: 0.")
    picture = np.asarray(Image.open(tmp_path / "e/explanation.png").convert("RGB"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 20
    frames = list(read_frames(tmp_path / "e/explanation.mp4"))
    assert len(frames) == len(read_subclips(clip, 4, 32, fps=25)) * 4 and frames[0].shape == (240, 224, 3)
    assert "holds a finished explanation" in str(_explain(run_folder, clip, "--out", tmp_path / "e").exception)
    assert _explain(run_folder, clip, "--out", tmp_path / "e", "--force").exception is None


@pytest.mark.parametrize("kind", ["label", "video", "folder"])
def test_mistakes(kind: str, run_folder: Path, clip: Path, tmp_path: Path, clipstep: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1").touch()
    arguments, message = {
        "label": (
            [run_folder, clip, "--label", "hug", "--out", tmp_path / "e"],
            "error: unknown class; got hug; expected one of fight, nofight, other",
        ),
        "video": ([run_folder, tmp_path / "no.mp4", "--out", tmp_path / "e"], f"error: {tmp_path}/no.mp4: no such file"),
        "folder": ([run_folder, clip, "--out", tmp_path / "thesis"], f"error: {tmp_path}/thesis: exists and is not an explanation"),
    }[kind]
    code, _, err = clipstep("explain", *arguments)
    assert code == 2 and err.startswith(message)
    assert not (tmp_path / "e").exists()
