"""`clipstep run --show`: the window on a virtual X server, whose picture is read from its memory, and when frames are shown."""

import csv
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from clipstep.runtime import Prediction, StepModel, VideoError, VideoPrediction
from clipstep.runtime.outputs.annotated_frames import AnnotatedFrames
from clipstep.runtime.outputs.output import Output, Source, WindowClosed
from clipstep.runtime.outputs.pace import Pace
from clipstep.runtime.outputs.saving import saving, window
from clipstep.runtime.video_predictions import predictions

Start = Callable[..., int]
WriteVideo = Callable[..., Path]


class Shown(NamedTuple):
    """A frame of a video, in place of `Picture`."""

    seconds: float
    image: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[:2]


def _said(end: float, share: float = 1.0) -> VideoPrediction:
    return VideoPrediction(0.0, end, False, Prediction(0, 4, np.log(np.array([share, 1 - share + 1e-9], np.float32)), ("a", "b")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A virtual X server of 640x480: its display, and the file that holds its picture."""
    folder = tmp_path_factory.mktemp("screen")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset", "-fbdir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f":{process.stdout.readline().strip()}", folder / "Xvfb_screen0"
        process.terminate()


@pytest.fixture
def screen(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[], np.ndarray]:
    """Gives what the virtual screen shows, `(480, 640, 3)` uint8 RGB: the X window dump (XWD, version 7) that Xvfb keeps."""
    monkeypatch.setenv("DISPLAY", server[0])

    def picture() -> np.ndarray:
        data = server[1].read_bytes()
        header = struct.unpack(">25I", data[:100])
        length, width, height, row, colours = header[0], header[4], header[5], header[12], header[19]
        pixels = np.frombuffer(data, np.uint8, height * row, length + 12 * colours).reshape(height, row // 4, 4)
        return pixels[:, :width, 2::-1]  # Four bytes a pixel: blue, green, red, nothing.

    return picture


@pytest.mark.screen
def test_the_screen_shows_the_frame_with_the_prediction_that_is_known(screen: Callable[[], np.ndarray]) -> None:
    columns = np.broadcast_to(np.arange(100, 200, dtype=np.uint8)[:, None], (200, 100, 3))
    with window("title", 2) as shown:
        shown.show(Shown(0.0, columns))
        waiting = screen()
        shown.add(_said(0.05, 0.25))
        shown.show(Shown(0.06, columns))
        said = screen()
    assert (waiting[:140, :100] == columns[:140]).all() and (said[:140, :100] == columns[:140]).all()
    assert (waiting[:, 100:] == 0).all() and (waiting[200:] == 0).all()  # It has the frame's size.
    rows = [int((one[:200, 1] < 70).all(axis=1).sum()) for one in (waiting, said)]  # Of the panel, which darkens 101 to 42.
    assert 20 < rows[0] < rows[1] < 60
    bars = [(row[:100] == (240, 160, 30)).all(axis=1).sum() for row in said[150:200]]
    assert max(bars) > 2 * max((row[:100] == (130, 180, 230)).all(axis=1).sum() for row in said[150:200]) > 0


@pytest.mark.screen
def test_a_frame_that_is_larger_than_the_screen_is_halved(screen: Callable[[], np.ndarray]) -> None:
    with window("title", 1) as shown:
        shown.show(Shown(0.0, np.full((300, 700, 3), 200, np.uint8)))
        lit = (screen() == 200).all(axis=2)
    assert lit[:100, :350].all() and not lit[:, 350:].any()


@pytest.mark.screen
@pytest.mark.parametrize("key", ["q", "Escape"])
def test_a_key_closes_the_window(screen: Callable[[], np.ndarray], key: str) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    with window("to be closed", 1) as shown:
        shown.show(Shown(0.0, black))
        subprocess.run(["xdotool", "search", "--name", "^to be closed$", "windowfocus", "key", key], check=True, timeout=10)
        with pytest.raises(WindowClosed):
            shown.show(Shown(10.0, black))
        assert shown.finish(20.0) == []


@pytest.mark.screen
def test_the_command_shows_the_video_to_its_end(screen: Callable[[], np.ndarray], start: Start, bundle_path: Path, write_video: WriteVideo) -> None:
    """The video is red, so the first screenshots are, too; what was on the screen is looked at whenever a frame is shown."""
    frames = np.zeros((9, 96, 130, 3), np.uint8)
    frames[..., 0] = 250
    seen: list[Any] = []

    class Screenshots(Pace):
        def wait(self, seconds: float, now: float) -> float | None:
            seen.append(screen()[10, 10].tolist())
            return super().wait(seconds, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipstep.runtime.outputs.window.Pace", Screenshots)
        assert start("run", bundle_path, write_video(frames), "--show", "--every-frame") == 0
    assert seen[0] == [0, 0, 0] and all(red > 240 and green < 10 > blue for red, green, blue in seen[1:]) and len(seen) == 9
    assert not screen().any()


@pytest.mark.screen
def test_without_a_screen_it_says_so(start: Start, bundle_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert start("run", bundle_path, clip, "--show") == 2
    out, err = capsys.readouterr()
    assert out == "" and err == (
        "error: --show finds no screen; got no display name and no $DISPLAY environment variable; "
        "run it in a desktop session, or write the same to a file with --save out.mp4\n"
    )


def test_without_tkinter_it_says_how_to_install_it(start: Start, bundle_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delitem(sys.modules, "clipstep.runtime.outputs.window", raising=False)
    monkeypatch.setitem(sys.modules, "tkinter", None)
    assert start("run", bundle_path, clip, "--show") == 2
    assert capsys.readouterr().err.startswith("error: --show needs tkinter, which is not installed; on Debian: apt-get install python3-tk; ")


def test_a_folder_has_no_window(start: Start, bundle_path: Path, clip: Path, capsys: Any) -> None:
    assert start("run", bundle_path, clip.parent, "--show") == 2
    assert capsys.readouterr().err == f"error: --show shows one video; got the folder {clip.parent}; leave it out, or name a video\n"


class ClosedAt(Output):
    """A window that is closed at that frame."""

    def __init__(self, frame: int) -> None:
        self._left = frame

    def show(self, picture: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise WindowClosed


def test_the_files_of_a_closed_window_have_what_was_seen(model: StepModel, write_video: WriteVideo, tmp_path: Path) -> None:
    video = write_video(np.random.default_rng(0).integers(0, 256, (14, 48, 64, 3), np.uint8))
    tables, notes = [], list[str]()
    for frame in (99, 9):  # To the end; two of three subclips.
        files = [(tmp_path / f"{frame}{kind}", kind) for kind in (".csv", ".srt", ".mp4")]
        with saving(files, Source("video", video, model.labels, 3, 0.16), force=False) as outputs:
            list(predictions(model, video, [*outputs, ClosedAt(frame)], every_frame=False, partial=False, note=notes.append))
        tables.append(list(csv.reader(files[0][0].read_text(encoding="utf-8").splitlines())))
        assert all(path.stat().st_size > 0 for path, _ in files)
    assert len(tables[0]) == 4 and tables[1] == tables[0][:3]
    assert notes == [f"{video}: the window was closed at 0.36 s; what follows was left out"]


def test_a_window_that_is_closed_before_the_first_prediction_is_an_error(model: StepModel, write_video: WriteVideo, tmp_path: Path) -> None:
    video = write_video(np.zeros((9, 48, 64, 3), np.uint8))
    expected = f"{video}: the window was closed before the first prediction; got 3 frames; expected at least 4"
    with (
        pytest.raises(VideoError, match=f"^{expected}$"),
        saving([(tmp_path / "out.csv", ".csv")], Source("video", video, model.labels, 3, 0.16), force=False) as outputs,
    ):
        list(predictions(model, video, [*outputs, ClosedAt(3)], every_frame=False, partial=False, note=print))
    assert not (tmp_path / "out.csv").exists()


def test_frames_wait_for_their_time_and_late_ones_are_left_out() -> None:
    """50 frames a second, the clock at 100 s; a step takes 70 ms after the third frame."""
    pace = Pace()
    clock = [100.0, 100.01, 100.03, 100.11, 100.112, 100.114, 100.116]
    waits = [pace.wait(number / 50, now) for number, now in enumerate(clock)]
    assert waits == [0, pytest.approx(0.01), pytest.approx(0.01), None, None, 0, pytest.approx(0.004)]
    assert (pace.shown, pace.left_out) == (5, 2)
    assert pace.until(0.14, 100.13) == pytest.approx(0.01) and pace.until(0.14, 101) == 0


def test_a_video_that_is_always_late_stands_still_for_a_tenth_of_a_second_at_most() -> None:
    """Each frame takes 60 ms in place of 40."""
    pace = Pace()
    waits = [pace.wait(number / 25, 0.06 * number) for number in range(9)]
    assert [wait is not None for wait in waits] == [True, True, True, False, True, False, True, False, True]


@pytest.mark.parametrize(("quick", "size"), [(True, (60, 100)), (False, (100, 164))])
def test_a_window_halves_frames_where_a_file_has_all_the_room(quick: bool, size: tuple[int, int]) -> None:
    """121x200 into 100 columns: 61x100 by halves, 100x165.3 otherwise. Each pixel of a half is the mean of four."""
    image = np.zeros((200, 121, 3), np.uint8)
    image[::2, ::2] = 200
    frame = AnnotatedFrames((200, 121), 1, (190, 100), quick=quick).draw(Shown(0.0, image))  # type: ignore[arg-type]
    assert frame.size == size
    assert not quick or (np.asarray(frame)[:50, :60] == 50).all()
