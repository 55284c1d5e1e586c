"""`clipstep run`: top-k as the video goes on; a mistake is one line and exit code 2."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clipstep.runtime import StepModel, read_frames

WriteVideo = Callable[..., Path]
Start = Callable[..., int]


@pytest.fixture
def colours(write_video: WriteVideo) -> Path:
    """Ten frames at 25 fps: four red, four blue, two green."""
    frames = np.zeros((10, 32, 32, 3), np.uint8)
    frames[:4, ..., 0] = frames[4:8, ..., 2] = frames[8:, ..., 1] = 250
    return write_video(frames)


def test_a_line_after_each_subclip_with_its_time_and_classes(start: Start, bundle_path: Path, colours: Path, capsys: Any) -> None:
    assert start("run", bundle_path, colours, "--top", "2") == 0
    captured = capsys.readouterr()
    first, *lines = captured.out.splitlines()
    assert captured.err == ""
    assert "model.onnx" in first and "onnxruntime, 1 thread" in first
    parsed = [re.fullmatch(r" +(\d+\.\d\d) s  (\w+) (\d\.\d{3})  (\w+) (\d\.\d{3})", line) for line in lines]
    assert [match and (match[1], match[2]) for match in parsed] == [("0.16", "red"), ("0.32", "blue")]


def test_the_numbers_are_the_streams(start: Start, bundle_path: Path, clip: Path, capsys: Any) -> None:
    with StepModel.load(bundle_path) as model:
        stream = model.stream()
        predictions = [p for p in map(stream.push, read_frames(clip, fps=25, size=model.interface.input.shape[1])) if p]
    assert start("run", bundle_path, clip, "--top", "3", "--threads", "1") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(" s  ")[1] for line in lines] == ["  ".join(f"{label} {share:.3f}" for label, share in p.top(3)) for p in predictions]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.clipstep", "VIDEO"), r"nowhere\.clipstep: is not a bundle"),
        (("BUNDLE", "nowhere.mp4"), r"nowhere\.mp4: no such file; expected a video file"),
        (("BUNDLE", "SHORT"), r"short\.mp4: too short; got 3 frames; expected at least 4; use a longer video"),
        (("BUNDLE", "SOUND"), r"sound\.mp4: has no video stream"),
        (("BUNDLE", "VIDEO", "--engine", "tensorrt"), "unknown engine; got tensorrt; expected one of onnxruntime, executorch"),
        (("BUNDLE", "VIDEO", "--engine", "executorch"), "has no float32 executorch artifact"),
        (("BUNDLE", "VIDEO", "--threads", "0"), "thread count not available; got 0; expected 1 to"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    start: Start, bundle_path: Path, colours: Path, sound_only: Path, write_video: WriteVideo, capsys: Any, arguments: tuple[str, ...], message: str
) -> None:
    short = write_video(np.zeros((3, 32, 32, 3), np.uint8), "short.mp4")
    given = {"BUNDLE": bundle_path, "VIDEO": colours, "SHORT": short, "SOUND": sound_only}
    assert start("run", *(given.get(word, word) for word in arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and re.search(message, line)


@pytest.mark.parametrize("arguments", [("run",), ("run", "--top", "0", "a", "b"), ("fly",), ("run", "a", "b", "--wings")])
def test_a_wrong_command_line_is_explained_with_exit_code_2(start: Start, capsys: Any, arguments: tuple[str, ...]) -> None:
    assert start(*arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == "" and line.startswith("error: ")


def test_a_video_just_long_enough_at_a_frame_stride_is_run(
    start: Start, edit_manifest: Callable[[Callable[[dict[str, Any]], Any]], Path], write_video: WriteVideo, capsys: Any
) -> None:
    """Of 7 frames, T = 4 are used at stride 2: 0, 2, 4, 6."""
    path = edit_manifest(lambda values: values["input"].update(frame_stride=2))
    code = start("run", path, write_video(np.zeros((7, 32, 32, 3), np.uint8)))
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert (code, captured.err) == (0, "")


def test_what_a_damaged_video_gives_is_kept_if_asked_for(start: Start, bundle_path: Path, damaged_video: Path, capsys: Any) -> None:
    assert start("run", bundle_path, damaged_video) == 2
    refused = capsys.readouterr()
    assert "cannot be decoded to its end; got " in refused.err and refused.err.endswith(", or add --partial to take what was read\n")
    assert start("run", bundle_path, damaged_video, "--partial") == 0
    kept = capsys.readouterr()
    assert kept.out == refused.out and " 0.16 s " in kept.out
    assert kept.err.startswith("note: ") and "cannot be decoded to its end" in kept.err


def test_a_video_of_another_rate_is_resampled_and_that_is_said(start: Start, bundle_path: Path, write_video: WriteVideo, capsys: Any) -> None:
    """Of 50 frames a second each second one makes the video of 25."""
    frames = np.zeros((32, 32, 32, 3), np.uint8)
    for index in range(32):
        frames[index, ..., (index // 8) % 3] = 250
        frames[index, ..., (index + 1) % 3] += np.uint8(100 * (index % 2))
    slow, fast = write_video(frames[::2], "slow.mp4", 25), write_video(frames, "fast.mp4", 50)
    assert start("run", bundle_path, slow) == 0
    expected = capsys.readouterr()
    assert expected.err == ""
    assert start("run", bundle_path, fast) == 0
    got = capsys.readouterr()
    assert got.err.endswith("fast.mp4: 50 frames a second, taken at 25\n")
    assert [line.split()[2] for line in got.out.splitlines()[1:]] == [line.split()[2] for line in expected.out.splitlines()[1:]] != []
    assert [line.split()[0] for line in got.out.splitlines()[1:]] == ["0.16", "0.32", "0.48", "0.64"]
    assert start("run", bundle_path, fast, "--every-frame") == 0
    plain = capsys.readouterr()
    assert plain.err.endswith("fast.mp4: 50 frames a second, every one goes to a model for 25\n")
    assert len(plain.out.splitlines()) == 1 + 8


def test_a_long_pause_is_cut_out_and_that_is_said(start: Start, bundle_path: Path, tmp_path: Path, capsys: Any) -> None:
    """Six frames, two seconds of nothing, six frames."""
    path = tmp_path / "gap.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for stamp in (*range(6), *range(56, 62)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert start("run", bundle_path, path) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[1:]] == ["0.16", "2.32", "2.48"]
    assert captured.err.endswith("gap.mp4: 1 pause of more than 1 s, cut out\n")
