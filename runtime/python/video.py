"""Read the frames of video files with PyAV."""

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
from clipstep.runtime.filesystem.path_checks import check_file

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
"""FFmpeg's demuxers for files that contain their video. All others are refused: a playlist (ffconcat, HLS, DASH, SDP), whatever its file is
called, makes FFmpeg open other files or addresses, and FFmpeg would render a text file as a picture of a terminal."""
ONLY_THIS_FILE = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}


class VideoError(ClipstepError):
    """A video cannot be read, or is too short."""


def read_frames(path: str | Path, *, whole: int = 1, short_side: int | None = None, threads: int = 0) -> Iterator[Frame]:
    """Yield the frames of a video in display order, each `(H, W, 3)` uint8 RGB, upright: the container's rotation is applied.

    Args:
        path: the video file.
        whole: yield frames in groups of this number only, and drop the frames at the end that do not fill one.
        short_side: scale larger frames down (bilinear) so that their short side has this many pixels.
        threads: how many threads decode; 0 for as many as there are cores.

    Raises:
        VideoError: the file is missing, has no video stream, cannot be decoded, or has fewer than `whole` frames.

    Example:
        ```python
        for frame in read_frames("video.mp4"):
            prediction = stream.push(frame)
        ```
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
    """Return the nominal frames per second of a video: FFmpeg's guess, because the average in the container can be far off.

    Raises:
        VideoError: the file cannot be opened, has no video stream, or has no frame rate.
    """
    with open_video(path) as (_, stream):
        rate: Fraction | None = stream.guessed_rate
    if not rate:
        raise VideoError(f"{path}: states no frame rate", expected="a video with a frame rate", fix="re-encode it")
    return float(rate)


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file for reading, and no other file that it may name; see `DEMUXERS`.

    Raises:
        VideoError: the file is missing, is not a media file, has no video stream, or FFmpeg does not know its codec.
    """
    path = Path(path)
    check_file(path, "a video file", error=VideoError)
    try:
        container = av.open(f"file:{path}", options=ONLY_THIS_FILE)
    except (av.FFmpegError, ValueError) as error:  # PyAV raises ValueError for an unknown name of a channel layout, for example.
        unlisted = getattr(error, "errno", None) == errno.EINVAL  # FFmpeg's error for a format that is not on the whitelist.
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
    if stream.codec_context is None:  # PyAV's type annotations say that it is never None.
        raise _undecodable(path, "a video codec that FFmpeg does not know")
    return stream


def _reason(error: Exception) -> str:
    """Return FFmpeg's message without its number and path."""
    return str(getattr(error, "strerror", None) or error)


def _undecodable(path: str | Path, reason: str) -> VideoError:
    return VideoError(f"{path}: cannot be decoded", got=reason, expected="a video that FFmpeg reads", fix="re-encode or replace it")


def scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Return the height and width of a frame after its short side was scaled down to `short_side` pixels, if it is longer."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    return round(height * scale), round(width * scale)


def _converter(short_side: int | None) -> Callable[[av.VideoFrame], Frame]:
    reformatter = VideoReformatter()

    def convert(frame: av.VideoFrame) -> Frame:
        height, width = scaled_size(frame.height, frame.width, short_side)
        rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR")
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)), np.uint8)

    return convert
