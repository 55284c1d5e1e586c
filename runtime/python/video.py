"""Video files to RGB frames, through PyAV."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.places import check_file

Frame = npt.NDArray[np.uint8]

DEMUXERS = (
    "mov",
    "matroska",
    "webm",
    "avi",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "m4v",
    "h261",
    "h263",
    "h264",
    "hevc",
    "vvc",
    "vc1",
    "av1",
    "obu",
    "ivf",
    "evc",
    "flv",
    "asf",
    "ogg",
    "mjpeg",
    "mpjpeg",
    "nut",
    "gxf",
    "mxf",
    "dv",
    "dirac",
    "rm",
    "nsv",
    "wtv",
    "gif",
    "apng",
    "yuv4mpegpipe",
)
"""FFmpeg's demuxers of files that hold their video themselves. A playlist (ffconcat, HLS, DASH, SDP) names other files or addresses,
whatever the file is called, and FFmpeg would draw a text file as a terminal: both are refused."""
ONLY_THIS_FILE = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}


class VideoError(ClipstepError):
    """A video that cannot be read, or is too short to be used."""


def read_frames(path: str | Path, *, whole: int = 1, short_side: int | None = None, threads: int = 0) -> Iterator[Frame]:
    """The frames of a video in display order, each ``(H, W, 3)`` uint8 RGB, upright.

    A rotation that the container asks for (phones record sideways) is applied. Frames that are left over at the end and
    make no run of ``whole`` frames are not converted. With ``short_side`` larger frames are scaled down to it (bilinear,
    whole pixels) while they are converted. ``threads`` decode; 0 stands for as many as there are cores.

    Raises:
        VideoError: the file is missing, has no video stream, cannot be decoded, or has fewer than ``whole`` frames.
    """
    try:
        with open_video(path) as (container, stream):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            convert = _converter(short_side)
            waiting: list[av.VideoFrame] = []
            count = 0
            for frame in container.decode(stream):
                count += 1
                waiting.append(frame)
                if len(waiting) == whole:
                    yield from map(convert, waiting)
                    waiting.clear()
    except (av.FFmpegError, ValueError) as error:
        raise _undecodable(path, _reason(error)) from error
    if count == 0:
        raise _undecodable(path, "no frame")
    if count < whole:
        raise VideoError(f"{path}: too short", got=f"{count} frames", expected=f"at least {whole}", fix="use a longer video")


def frame_rate(path: str | Path) -> float:
    """The nominal frames per second: FFmpeg's guess, because the average that a container states can be far off.

    Raises:
        VideoError: the file cannot be opened, has no video stream, or states no frame rate.
    """
    with open_video(path) as (_, stream):
        rate: Fraction | None = stream.guessed_rate
    if not rate:
        raise VideoError(f"{path}: states no frame rate", expected="a video with a frame rate", fix="re-encode it")
    return float(rate)


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a video file for reading, and nothing but that file: see ``DEMUXERS``.

    Raises:
        VideoError: the file is missing, is no media file, has no video stream, or one whose codec FFmpeg does not know.
    """
    path = Path(path)
    check_file(path, "a video file", error=VideoError)
    try:
        container = av.open(f"file:{path}", options=ONLY_THIS_FILE)
    except (av.FFmpegError, ValueError) as error:  # PyAV raises ValueError for an unknown name of a channel layout, for example.
        unlisted = getattr(error, "errno", None) == errno.EINVAL  # FFmpeg's answer to a format that is not on the list.
        raise _undecodable(path, "a playlist or another format that holds no video itself" if unlisted else _reason(error)) from error
    with container:
        yield container, _video_stream(container, path)


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise VideoError(
            f"{path}: has no video stream",
            got=", ".join(stream.type for stream in container.streams) or "no stream at all",
            expected="a file with a video stream",
            fix="choose another file",
        )
    stream = container.streams.video[0]
    if stream.codec_context is None:  # PyAV types it as always there.
        raise _undecodable(path, "a video codec that FFmpeg does not know")
    return stream


def _reason(error: Exception) -> str:
    """What FFmpeg says, without the number and the path around it."""
    return str(getattr(error, "strerror", None) or error)


def _undecodable(path: str | Path, reason: str) -> VideoError:
    return VideoError(f"{path}: cannot be decoded", got=reason, expected="a video that FFmpeg reads", fix="re-encode or replace it")


def scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width when a frame's short side is scaled down to ``short_side`` pixels, if it is longer."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    return round(height * scale), round(width * scale)


def _converter(short_side: int | None) -> Callable[[av.VideoFrame], Frame]:
    reformatter = VideoReformatter()

    def convert(frame: av.VideoFrame) -> Frame:
        height, width = scaled_size(frame.height, frame.width, short_side)
        rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR")
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)), np.uint8)

    return convert
