"""The demo's network predicts its clip correctly, and finished commands of the demo are not run again."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.network.videos import read_subclips
from clipstep.training.data.lists import read_data_set
from clipstep.training.demo import command
from clipstep.training.demo.command import CLIP, DATA, NETWORK, SPLIT, Stage
from clipstep.training.predict import video_logits
from clipstep.training.run import load_run


def test_the_network_predicts_the_demos_clip_correctly() -> None:
    run = load_run(NETWORK)
    frames, size, channels = run.info.shape
    logits = video_logits(run.network, read_subclips(CLIP, frames, size, channels), run.info)
    assert run.info.labels[int(logits[-1].argmax())] == CLIP.parent.name


def test_no_source_video_is_trained_on_and_tested_on() -> None:
    data = read_data_set(DATA, int(SPLIT))
    assert (len(data.train), len(data.test)) == (16, 62)
    assert [sum(clip.label == label for clip in data.test) for label in (0, 1)] == [31, 31]
    sources = [{clip.path.stem.rsplit("_", 1)[0] for clip in clips} for clips in (data.train, data.test)]
    assert not sources[0] & sources[1]


def test_the_network_s_page_says_what_its_run_says() -> None:
    """517,370 parameters, and 43 of 62 test clips when it was trained."""
    info = json.loads((NETWORK / "run.json").read_text())
    assert hashlib.sha256((NETWORK / "model.safetensors").read_bytes()).hexdigest() == info["checkpoint_sha256"]
    page = (NETWORK.parent / "README.md").read_text()
    run = load_run(NETWORK)
    right = round(info["training"]["test_top1"] * info["training"]["test_videos"])
    assert f"({sum(p.numel() for p in run.network.parameters()):,} parameters" in page
    assert f"then right for {right} of them" in page and f"of the data set's {info['training']['test_videos']} test clips" in page


def test_what_an_earlier_demo_finished_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clipstep: Callable[..., tuple[int, str, str]]
) -> None:
    there = tmp_path / "out" / "made"
    there.mkdir(parents=True)
    absent = Stage(("inspect", str(tmp_path / "nothing.onnx")))
    monkeypatch.setattr(command, "stages", lambda out: [Stage(("train", "nothing"), out / "made"), absent])
    code, out, err = clipstep("demo", "--out", tmp_path / "out")
    assert code == 2
    assert out.split("\n$ ")[1:] == [f"clipstep train nothing\n{there} is there already\n", f"clipstep inspect {tmp_path / 'nothing.onnx'}\n"]
    assert err == f"error: {tmp_path / 'nothing.onnx'}: no such file; check the path\n"
