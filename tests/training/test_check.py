"""``clipstep train DATA --check`` lists broken, too short and duplicate videos, and counts the classes; the exit code tells if all is well."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipstep.training.data.encode import write_video

Command = Callable[..., tuple[int, str, str]]


def _video(path: Path, frames: int) -> None:
    """Write noise that is another one for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(str(path).encode()))
    write_video(path, list(random.integers(0, 256, (frames, 16, 16, 3), np.uint8)), 25)


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four videos of two classes; read in this process."""
    monkeypatch.setattr("clipstep.training.data.check.available_cores", lambda: 1)
    for name in ("train/A/1.mp4", "train/A/2.mp4", "train/B/1.mp4", "test/B/2.mp4"):
        _video(tmp_path / "data" / name, 4)
    return tmp_path / "data"


def _check(clipstep: Command, data: Path, *options: str) -> tuple[int, str, str]:
    return clipstep("train", data, "--check", "--frames", "4", "--validation", "0", *options)


def test_a_good_data_set(good: Path, clipstep: Command) -> None:
    assert _check(clipstep, good) == (
        0,
        f"{good}: 4 videos in the layout folders\n"
        "class  training  test\n"
        "─────────────────────\n"
        "A             2     0\n"
        "B             1     1\n"
        "2 classes: the smallest is B with 1 training video, the largest A with 2\n"
        "warning: there is only one video to train on of B\n"
        "training videos of 25 frames a second\n",
        "",
    )


def test_frames_are_counted_at_the_rate_of_the_training(good: Path, clipstep: Command) -> None:
    """Every video has 25 frames a second; at 5 a second each is five times as short."""
    _, whole, _ = _check(clipstep, good, "--json")
    code, out, err = _check(clipstep, good, "--fps", "5", "--json")
    assert json.loads(whole)["too_short"] == [] and (json.loads(out)["fps"], json.loads(out)["video_rates"]) == (5, [25, 25])
    assert code == 2 and len(json.loads(out)["too_short"]) == 4 and "4 too short videos" in err


def test_all_that_is_wrong_is_listed(good: Path, clipstep: Command) -> None:
    _video(good / "train/B/short.mp4", 3)
    (good / "train/B/text.mp4").write_text("no video")
    whole = (good / "train/A/1.mp4").read_bytes()
    (good / "train/B/cut.mp4").write_bytes(whole[: len(whole) // 2])
    shutil.copy(good / "train/A/2.mp4", good / "train/A/again.mp4")
    shutil.copy(good / "train/B/1.mp4", good / "test/B/leak.mp4")
    code, out, err = _check(clipstep, good)
    lines = out.splitlines()
    assert any(line.startswith(f"broken: {good}/train/B/text.mp4: cannot be decoded; got ") for line in lines)
    assert any(line.startswith(f"broken: {good}/train/B/cut.mp4: cannot be decoded") for line in lines)
    assert f"too short: {good}/train/B/short.mp4: 3 frames" in lines
    assert f"the same: {good}/train/A/2.mp4 (training), {good}/train/A/again.mp4 (training)" in lines
    assert f"the same: {good}/train/B/1.mp4 (training), {good}/test/B/leak.mp4 (test)" in lines
    assert (code, err) == (
        2,
        f"error: {good}: 2 broken videos, 1 too short video, 2 duplicates; "
        "expected videos of at least 4 frames, each of them once; remove or replace them\n",
    )


def test_the_same_as_json(good: Path, clipstep: Command) -> None:
    _video(good / "train/B/short.mp4", 3)
    (good / "train/A/text.mp4").write_text("no video")
    shutil.copy(good / "train/B/1.mp4", good / "test/B/leak.mp4")
    code, out, err = _check(clipstep, good, "--json")
    found = json.loads(out)
    assert code == 2 and err.startswith(f"error: {good}: 1 broken video, 1 too short video, 1 duplicate; ")
    assert (found["data"], found["layout"], found["frames"]) == (str(good), "folders", 4)
    assert found["classes"] == {"A": {"training": 3, "test": 0}, "B": {"training": 2, "test": 2}}
    assert found["too_short"] == [{"video": f"{good}/train/B/short.mp4", "frames": 3}]
    assert [entry["video"] for entry in found["broken"]] == [f"{good}/train/A/text.mp4"]
    assert found["duplicates"] == [[{"video": f"{good}/train/B/1.mp4", "list": "training"}, {"video": f"{good}/test/B/leak.mp4", "list": "test"}]]
    assert any("the same content in both lists" in warning for warning in found["warnings"])


def test_duplicates_may_be_allowed(good: Path, clipstep: Command) -> None:
    shutil.copy(good / "train/B/1.mp4", good / "test/B/leak.mp4")
    code, out, err = _check(clipstep, good, "--allow-leakage")
    assert (code, err) == (0, "") and "leak.mp4 (test)" in out


def test_parts_of_videos_are_checked_one_by_one(good: Path, clipstep: Command) -> None:
    """At 25 frames a second 0.16 s are 4 frames. The same part in both lists is a duplicate, overlapping parts are a leak, others are neither."""
    (good / "train.csv").write_text("train/A/1.mp4,A,0,0.16\ntrain/B/1.mp4,B,0,0.16\ntrain/A/2.mp4,A,0.08,1\n")
    (good / "test.csv").write_text("test/B/2.mp4,B,0,1\ntrain/B/1.mp4,B,0,0.16\n")
    code, out, err = _check(clipstep, good)
    assert f"too short: {good}/train/A/2.mp4#t=0.08,1: 2 frames" in out.splitlines()
    assert f"the same: {good}/train/B/1.mp4#t=0,0.16 (training), {good}/train/B/1.mp4#t=0,0.16 (test)" in out.splitlines()
    assert code == 2 and "1 too short video, 1 duplicate;" in err
    (good / "train.csv").write_text("train/A/1.mp4,A,0,0.16\ntrain/B/1.mp4,B,0,0.16\n")
    (good / "test.csv").write_text("test/B/2.mp4,B,0,1\ntrain/B/1.mp4,B,0,1\n")
    assert "data: data leakage; expected" in _check(clipstep, good)[2]


def test_processes_find_the_same(tmp_path: Path, clipstep: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipstep.training.data.check.available_cores", lambda: 2)
    for name in ("train/A/1.mp4", "train/B/1.mp4", "test/B/2.mp4"):
        _video(tmp_path / name, 4)
    (tmp_path / "train/A/text.mp4").write_text("no video")
    code, out, _ = _check(clipstep, tmp_path)
    assert code == 2 and [line.partition(": cannot")[0] for line in out.splitlines() if "broken" in line] == [f"broken: {tmp_path}/train/A/text.mp4"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "Missing option '--out'; see clipstep train --help"),
        (("--json", "--out", "run"), "--json does nothing without --check; add --check, or leave --json out"),
    ],
)
def test_without_check_it_is_a_training(good: Path, clipstep: Command, options: tuple[str, ...], line: str) -> None:
    assert clipstep("train", good, *options) == (2, "", f"error: {line}\n")


def test_a_finished_or_missing_out_is_not_touched(good: Path, tmp_path: Path, clipstep: Command) -> None:
    assert _check(clipstep, good, "--out", str(tmp_path / "run"))[0] == 0 and not (tmp_path / "run").exists()
