"""Trainings on data sets that are not in UCF101's layout: their own validation, class weights, parts of videos, and what a resumption compares."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.training import train as training
from clipstep.training.data.encode import write_video
from clipstep.training.run import load_run
from clipstep.training.trainer import Trainer

Command = Callable[..., tuple[int, str, str]]
SMALL = ("--frames", "4", "--size", "64", "--epochs", "1", "--workers", "0", "--batch-size", "4")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder for each of three classes, two of which have one training video: 4 in all; a video each for validation and test."""
    names = ("train/A/1.mp4", "train/A/2.mp4", "train/B/1.mp4", "train/C/1.mp4", "val/B/2.mp4", "test/A/3.mp4")
    for number, name in enumerate(names):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, list(np.random.default_rng(number).integers(0, 256, (8, 32, 32, 3), np.uint8)), 25)
    return tmp_path / "data"


def test_a_run_on_folders(data: Path, tmp_path: Path, clipstep: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """n / (k * count): 4 / (3 * 2) for A, 4 / (3 * 1) for B and C."""
    weights = []

    class Spy(Trainer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            weights.append(self.class_weights)

    monkeypatch.setattr(training, "Trainer", Spy)
    code, out, err = clipstep("train", data, "--out", tmp_path / "run", *SMALL, "--class-weights", "balanced")
    assert (code, err) == (0, "")
    assert "3 classes: the smallest is B with 1 training video, the largest A with 2" in out.splitlines()
    assert weights == [pytest.approx([2 / 3, 4 / 3, 4 / 3])]
    summary = load_run(tmp_path / "run").info.training
    assert (summary["class_weights"], summary["train_videos"], summary["validation_videos"], summary["test_videos"]) == ("balanced", 4, 1, 1)
    assert summary["validation"] == 0 and summary["trained_on"]["videos"] == 5
    code, out, _ = clipstep("evaluate", tmp_path / "run", data, "--json")
    assert code == 0 and json.loads(out)["videos"] == 1
    code, _, err = clipstep("train", data, "--out", tmp_path / "other", *SMALL, "--validation", "0.1")
    assert (code, err) == (2, f"error: {data}: says what is for validation; got --validation 0.1; leave --validation out\n")


def test_a_run_on_parts_of_videos_and_its_resumption(data: Path, tmp_path: Path, clipstep: Command) -> None:
    """The second video ends within its part, which is too short for a subclip. At 25 frames a second, 0.16 s are 4 frames."""
    parts = "train/A/1.mp4,A,0,0.16\ntrain/A/1.mp4,B,0.16,0.32\ntrain/A/2.mp4,B,0.28,9\n"
    (data / "train.csv").write_text(parts)
    (data / "test.csv").write_text("test/A/3.mp4,A\n")
    arguments = ("train", data, "--out", tmp_path / "run", *SMALL, "--validation", "0")
    with pytest.warns(UserWarning, match=r"skipped: .*2\.mp4: too short; got 1 frame from 0\.28 to 9 s"):
        code, out, _ = clipstep(*arguments)
    assert code == 0 and "1 broken videos skipped" in out
    summary = load_run(tmp_path / "run").info.training
    assert list(summary["skipped_videos"]) == [f"{data}/train/A/2.mp4#t=0.28,9"] and summary["train_videos"] == 2
    assert summary["trained_on"]["videos"] == 3 and summary["class_weights"] is None
    assert clipstep(*arguments, "--resume")[0] == 0
    (data / "train.csv").write_text(parts.replace("9\n", "8\n"))
    assert "belongs to another training; got another training list" in clipstep(*arguments, "--resume")[2]
    (data / "train.csv").write_text(parts.replace("A,0,", "B,0,").replace("B,0.16", "A,0.16"))
    assert "belongs to another training; got labels of the training list" in clipstep(*arguments, "--resume")[2]
