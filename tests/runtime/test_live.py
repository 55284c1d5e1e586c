"""Live video: cameras, RTSP and HTTP, from servers on loopback that do what cameras, and what broken or hostile servers do."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, DamagedVideoError, LiveVideo, StepModel, VideoError, VideoPrediction, predict_video, read_timed_frames
from clipstep.runtime.live import live_video, places
from clipstep.runtime.live.newest import Newest
from tests.shared.live_servers import RtspServer, h264_pictures, http_server, jpeg_stream, respond

Start = Callable[..., int]
WriteVideo = Callable[..., Path]
RAMP = tuple(range(20, 220, 4))
"""Levels of grey that tell the pictures apart."""
FPS = 50


@pytest.fixture(scope="module")
def ramp() -> list[bytes]:
    return h264_pictures(RAMP)


@pytest.fixture(scope="module")
def grey() -> list[bytes]:
    return h264_pictures([100])


@pytest.fixture
def red_camera(monkeypatch: pytest.MonkeyPatch) -> str:
    """FFmpeg's test picture takes the place of a camera: red, 25 frames a second, as they are due."""
    monkeypatch.setitem(places.CAMERA_FORMATS, "linux", "lavfi")
    return "color=red:size=64x48:rate=25,realtime"


def _levels(frames: Sequence[Any]) -> list[int]:
    """Return which picture of the ramp each frame shows."""
    return [round((float(frame.image.mean()) - RAMP[0]) / 4) for frame in frames]


def test_newest_drops_the_oldest() -> None:
    waiting = Newest[int](3)
    for number in range(10):
        waiting.give(number)
    waiting.end()
    assert list(waiting) == [7, 8, 9] and waiting.dropped == 7


def test_newest_waits_for_room_if_asked_to() -> None:
    waiting = Newest[int](3)
    giver = threading.Thread(target=lambda: [waiting.give(number, wait=True) for number in range(10)] and waiting.end())
    giver.start()
    assert list(waiting) == list(range(10)) and waiting.dropped == 0
    giver.join()


def test_rtsp_gives_each_frame_at_its_time(ramp: list[bytes]) -> None:
    with RtspServer(ramp, FPS) as server, LiveVideo.url(server.url, duration=0.9) as video:
        frames = list(video.frames())
    shown = _levels(frames)
    assert len(frames) > 10 and len(frames) + video.dropped >= 40
    assert [frame.seconds - frames[1].seconds for frame in frames[1:]] == pytest.approx([(number - shown[1]) / FPS for number in shown[1:]])
    assert frames[0].image.shape == (64, 64, 3)


def test_the_newest_frames_are_kept_for_a_slow_reader(ramp: list[bytes]) -> None:
    with RtspServer(ramp, FPS) as server, LiveVideo.url(server.url) as video:
        read = video.frames(size=16)
        next(read)
        time.sleep(0.5)
        numbers = _levels([next(read) for _ in range(live_video.ROOM)])
    assert np.all(np.diff(numbers) % len(RAMP) == 1)  # What waited are neighbours: the oldest were dropped.
    assert video.dropped > 10


def test_the_rate_of_a_live_video_is_measured(ramp: list[bytes]) -> None:
    with RtspServer(ramp, FPS) as server, LiveVideo.url(server.url, duration=1.1) as video:
        assert len(list(video.frames())) > 0
    assert video.rate == pytest.approx(FPS, rel=0.005)


def test_run_takes_an_address_at_the_rate_of_the_bundle(
    start: Start, bundle_path: Path, grey: list[bytes], tmp_path: Path, capsys: Any, reference: Callable[..., Any]
) -> None:
    with RtspServer(grey, FPS) as server:
        files = ("--csv", tmp_path / "a.csv", "--save", tmp_path / "a.srt", "--save", tmp_path / "a.mp4", "--plot", tmp_path / "a.png")
        assert start("run", bundle_path, "--url", server.url, "--duration", 1.4, "--json", *files) == 0
    captured = capsys.readouterr()
    said = [json.loads(line) for line in captured.out.splitlines()]
    assert 5 <= len(said) <= 9  # 1.4 seconds have 8 subclips of 0.16 s; the first frames may be dropped.
    logits, _ = reference(np.full((len(said), 4, 8, 8, 3), 100))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [prediction["top"][0]["probability"] for prediction in said] == pytest.approx(shares.max(axis=1), abs=2e-3)
    spans = np.diff([prediction["seconds"] for prediction in said[1:]])
    assert spans == pytest.approx([0.16] * len(spans), abs=0.021)
    assert f"note: {server.url}: 50 frames a second, taken at 25" in captured.err
    assert (tmp_path / "a.csv").read_text().count("\n") == len(said) + 1
    periods = np.diff([frame.seconds for frame in read_timed_frames(tmp_path / "a.mp4")]) * FPS
    assert len(periods) > 10 and periods == pytest.approx(np.round(periods), abs=0.05)


def test_a_connection_that_was_lost_is_made_again(start: Start, bundle_path: Path, grey: list[bytes], capsys: Any) -> None:
    with RtspServer(grey, FPS, limit=60) as server:
        assert start("run", bundle_path, "--url", server.url, "--duration", 2.5, "--json") == 0
        asked = server.requests.count("PLAY")
    captured = capsys.readouterr()
    assert asked >= 2
    assert f"{server.url}: lost at " in captured.err and f"{server.url}: connected again after " in captured.err
    assert "; the model started again" in captured.err
    times = [json.loads(line)["seconds"] for line in captured.out.splitlines()]
    assert np.all(np.diff(times) > 0) and times[-1] > 2.0


def test_files_have_what_a_lost_video_gave(start: Start, bundle_path: Path, grey: list[bytes], tmp_path: Path, capsys: Any) -> None:
    with RtspServer(grey, FPS, limit=60, connections=1) as server:
        assert start("run", bundle_path, "--url", server.url, "--reconnect", 0.3, "--csv", tmp_path / "a.csv") == 2
    captured = capsys.readouterr()
    rows = len((tmp_path / "a.csv").read_text().splitlines()) - 1
    assert rows == len(captured.out.splitlines()) - 1 > 0
    assert captured.err.splitlines()[-1].startswith(f"error: {server.url}: lost; got the end of the stream after ")
    assert ", then Connection refused; " in captured.err


def test_predict_video_raises_after_the_files_of_a_lost_video(bundle_path: Path, grey: list[bytes], tmp_path: Path) -> None:
    with (
        RtspServer(grey, FPS, limit=60) as server,
        StepModel.load(bundle_path) as model,
        pytest.raises(DamagedVideoError, match="lost; got the end of the stream after "),
    ):
        for said in predict_video(model, LiveVideo.url(server.url, reconnect=0), save=[tmp_path / "a.jsonl"]):
            last = said.end
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["seconds"] == pytest.approx(last)


def test_a_camera_gives_predictions(start: Start, bundle_path: Path, red_camera: str, capsys: Any) -> None:
    assert start("run", bundle_path, f"camera:{red_camera}", "--duration", 1, "--top", 1) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()[1:]
    assert len(lines) == 6 and all("red" in line for line in lines)  # 25 frames hold 6 subclips of 4.
    assert captured.err.startswith(f"note: camera:{red_camera}: 25 frames in 1.0 s")


def test_ctrl_c_ends_live_video_and_writes_its_files(
    start: Start, bundle_path: Path, red_camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = signal.getsignal(signal.SIGINT)
    printed = []

    def printed_and_interrupted(said: VideoPrediction, *_: object, **__: object) -> None:
        printed.append(said)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("clipstep.runtime.command_line.run_live.print_prediction", printed_and_interrupted)
    assert start("run", bundle_path, f"camera:{red_camera}", "--csv", tmp_path / "a.csv") == 0
    assert len(printed) == 1 == len((tmp_path / "a.csv").read_text().splitlines()) - 1
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_second_ctrl_c_ends_the_command(start: Start, bundle_path: Path, red_camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, before = signal.default_int_handler, signal.getsignal(signal.SIGINT)  # A job in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, usual)

    def interrupted_twice(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is not usual:  # Until the first one has taken effect.
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("clipstep.runtime.command_line.run_live.print_prediction", interrupted_twice)
    try:
        assert start("run", bundle_path, f"camera:{red_camera}", "--csv", tmp_path / "a.csv") == 130
    finally:
        signal.signal(signal.SIGINT, before)  # The command ignores a third one.
    assert list(tmp_path.glob("*a.csv*")) == []


def test_cameras_share_a_model(bundle_path: Path, red_camera: str) -> None:
    def watch(camera: LiveVideo) -> list[str]:
        stream = model.stream()
        with camera:
            said = [stream.push(frame.image, frame.seconds) for frame in camera.frames(size=8)]
        return [prediction.top(1)[0][0] for prediction in said if prediction]

    cameras = [LiveVideo.camera(red_camera.replace("red", colour), duration=0.6) for colour in ("red", "lime", "blue")]
    with StepModel.load(bundle_path) as model, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(watch, cameras)) == [["red"] * 3, ["green"] * 3, ["blue"] * 3]


def test_no_camera_is_said(start: Start, bundle_path: Path, capsys: Any) -> None:
    assert start("run", bundle_path, "camera:77") == 2
    assert "error: camera:77: cannot be read; got No such file or directory; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "device", "file", "options"),
    [
        ("linux", "1", "/dev/video1", {}),
        ("linux", "/dev/v4l/by-id/usb-door", "/dev/v4l/by-id/usb-door", {}),
        ("darwin", "0", "0:none", {"framerate": "30"}),
        ("win32", "1", "video=Desk", {}),
        ("win32", "Door", "video=Door", {}),
    ],
)
def test_cameras_of_each_system(system: str, device: str, file: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """How FFmpeg's documentation of its input devices names a camera. No real camera is opened."""
    monkeypatch.setattr(places.sys, "platform", system)
    monkeypatch.setattr(places, "_is_available", lambda _: True)
    monkeypatch.setattr(places, "_found", lambda _: {"Door": "", "Desk": "by the window"})
    place = places.camera(device)
    assert (place.file, place.options) == (file, options) and place.fix.endswith("Door, Desk (by the window)")


def test_jpeg_pictures_have_the_time_at_which_they_come() -> None:
    frames = []
    with (
        http_server(lambda request: jpeg_stream(request, RAMP[:30], 20)) as url,
        LiveVideo.url(f"{url}/mjpg", reconnect=0) as video,
        pytest.raises(DamagedVideoError),
    ):
        frames += (frame for frame in video.frames())
    shown = _levels(frames)
    assert np.diff([frame.seconds for frame in frames[-10:]]) == pytest.approx(np.diff(shown[-10:]) / 20, abs=0.045)


def test_a_file_on_a_server_is_read_whole(write_video: WriteVideo) -> None:
    frames = np.stack([np.full((48, 64, 3), level, np.uint8) for level in range(0, 240, 4)])
    file = write_video(frames)
    with http_server(lambda request: respond(request, file.read_bytes())) as url, LiveVideo.url(f"{url}/video.mp4") as video:
        read = []
        for frame in video.frames():
            time.sleep(0.002)
            read.append(frame)
    expected = list(read_timed_frames(file))
    assert [frame.seconds for frame in read] == pytest.approx([frame.seconds for frame in expected])
    assert all(np.array_equal(frame.image, other.image) for frame, other in zip(read, expected, strict=True)) and video.dropped == 0


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "redirect"])
def test_a_server_cannot_make_ffmpeg_open_something_else(kind: str, write_video: WriteVideo) -> None:
    file = write_video(np.zeros((30, 48, 64, 3), np.uint8))
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        target = f"file://{file}" if kind == "redirect" else f"http://{request.headers['Host']}/other.mp4"
        if request.path == "/other.mp4":
            respond(request, file.read_bytes())
        elif kind == "redirect":
            request.send_response(302)
            request.send_header("Location", target)
            request.end_headers()
        elif kind == "m3u8":
            lines = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{target}\n#EXTINF:1.2,\nfile://{file}\n#EXT-X-ENDLIST\n"
            respond(request, lines.encode(), "application/vnd.apple.mpegurl")
        else:
            respond(request, f"ffconcat version 1.0\nfile {target}\n".encode(), "text/plain")

    with http_server(answer) as url, LiveVideo.url(f"{url}/a.{kind}") as video, pytest.raises(VideoError, match="cannot be read"):
        list(video.frames())
    assert "/other.mp4" not in asked and asked


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_video, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("rtsp", "http"):
            with pytest.raises(VideoError, match=r"got no frame for 0\.5 s"):
                list(LiveVideo.url(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/").frames())


def test_pictures_that_cannot_be_decoded_are_passed_over(ramp: list[bytes]) -> None:
    """As after lost packets, or where a camera is joined between two key frames; FFmpeg has been given what it needs to know before."""
    noise = [b"\0\0\0\1\x41" + bytes(range(1, 200))] * 5
    with RtspServer([*ramp[:20], *noise, *ramp[25:]], FPS, limit=60, connections=1) as server, LiveVideo.url(server.url, duration=0.9) as video:
        shown = _levels(list(video.frames()))
    assert server.requests.count("PLAY") == 1 and max(shown) > 30 and not {20, 21, 22, 23, 24} & set(shown)


def test_a_stream_without_a_picture_is_lost(ramp: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_video, "PATIENCE", 0.5)
    noise = [b"\0\0\0\1\x41" + bytes(range(1, 200))] * 500
    with (
        RtspServer([*ramp[:30], *noise], FPS) as server,
        LiveVideo.url(server.url, reconnect=0) as video,
        pytest.raises(DamagedVideoError, match=r"lost; got no frame for 0\.5 s after \d+ frames"),
    ):
        list(video.frames())


def test_secrets_are_not_printed(start: Start, bundle_path: Path, capsys: Any) -> None:
    for url in (
        "rtsp://admin:hunter2@127.0.0.1:9/door?key=k3y",
        "rtp://admin:hunter2@127.0.0.1:9/door?key=k3y",
        "rtsp://admin:hunter2@[::1/x?k3y",
        "rtp://door?key=k3y",
    ):
        assert start("run", bundle_path, "--url", url) == 2
        captured = capsys.readouterr()
        assert "door" in captured.err or "::1" in captured.err
        assert not {"hunter2", "k3y"} & set(captured.err.replace("@", " ").replace("?", " ").replace(":", " ").replace("=", " ").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name one video; got none; expected VIDEO, camera:0, or --url ADDRESS"),
        (("video.mp4", "--url", "rtsp://127.0.0.1/"), "name one video; got VIDEO and --url; expected VIDEO, camera:0, or --url ADDRESS"),
        (
            ("rtsp://me:secret@127.0.0.1/door?a=b",),
            "rtsp://127.0.0.1/door: is an address; expected a file, a folder or camera:0; addresses are read only with --url",
        ),
        (("video.mp4", "--duration", "3"), "--duration does nothing for a file; leave it out, or name camera:0 or --url"),
        (("camera:0", "--reconnect", "3"), "--reconnect does nothing without --url; add --url, or leave --reconnect out"),
        (("--url", "rtsp://127.0.0.1:9/", "--every-frame"), "--every-frame does nothing for live video; got rtsp://127.0.0.1:9/; leave it out"),
        (
            ("--url", "file:///etc/passwd"),
            "file:///etc/passwd: not an address of a video; expected one that begins with http://, https://, rtsp://, rtsps://",
        ),
        (("--url", "door.mp4"), "door.mp4: not an address of a video; expected one that begins with http://, https://, rtsp://, rtsps:// and a host"),
        (
            ("--url", "rtsp://127.0.0.1:9/"),
            "rtsp://127.0.0.1:9/: cannot be read; got Connection refused; expected a video that FFmpeg",
        ),
    ],
)
def test_what_is_refused(start: Start, bundle_path: Path, arguments: tuple[str, ...], said: str, capsys: Any) -> None:
    assert start("run", bundle_path, *arguments) == 2
    assert f"error: {said}" in capsys.readouterr().err


def test_a_video_is_read_once(red_camera: str) -> None:
    with LiveVideo.camera(red_camera, duration=0.1) as video:
        assert len(list(video.frames())) == 3
        with pytest.raises(ClipstepError, match="was read before"):
            next(video.frames())


def test_a_reader_may_stop_early(red_camera: str) -> None:
    def taken() -> Iterator[float]:
        with LiveVideo.camera(red_camera) as video:
            for frame in video.frames():
                yield frame.seconds
                if frame.seconds > 0.1:
                    video.stop()

    assert list(taken()) == pytest.approx([0.0, 0.04, 0.08, 0.12])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read camera")]
