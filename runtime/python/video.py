"""Video files to RGB frames, through PyAV."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from clipstep.runtime.errors import ClipstepError

Frame = npt.NDArray[np.uint8]


class VideoError(ClipstepError):
    """A video that cannot be read, or is too short to be used."""


def read_frames(path: str | Path) -> Iterator[Frame]:
    """The frames of a video in display order, each ``(H, W, 3)`` uint8 RGB, upright.

    A rotation that the container asks for (phones record sideways) is applied.

    Raises:
        VideoError: the file is missing, has no video stream, or cannot be decoded.
    """
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file", expected="a video file", fix="check the path")
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            empty = True
            for frame in container.decode(stream):
                empty = False
                yield _upright(frame)
    except (av.FFmpegError, ValueError) as error:
        raise _undecodable(path, str(error)) from error
    if empty:
        raise _undecodable(path, "no frame")


def frame_rate(path: str | Path) -> float:
    """The nominal frames per second: FFmpeg's guess, because the average that a container states can be far off.

    Raises:
        VideoError: the file cannot be opened, has no video stream, or states no frame rate.
    """
    try:
        with av.open(str(path)) as container:
            rate: Fraction | None = _video_stream(container, path).guessed_rate
    except av.FFmpegError as error:
        raise _undecodable(path, str(error)) from error
    if not rate:
        raise VideoError(f"{path}: states no frame rate", expected="a video with a frame rate", fix="re-encode it")
    return float(rate)


def _video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    if not container.streams.video:
        raise VideoError(
            f"{path}: has no video stream",
            got=", ".join(stream.type for stream in container.streams) or "no stream at all",
            expected="a file with a video stream",
            fix="choose another file",
        )
    return container.streams.video[0]


def _undecodable(path: str | Path, reason: str) -> VideoError:
    return VideoError(f"{path}: cannot be decoded", got=reason, expected="a video that FFmpeg reads", fix="re-encode or replace it")


def _upright(frame: av.VideoFrame) -> Frame:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)), np.uint8)
