"""Read the frames of video files with PyAV."""

import errno
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
from av.stream import Disposition

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_file
from clipstep.runtime.resampler import Resampler, check_rate
from clipstep.runtime.resize import Box, Frame, center_box
from clipstep.runtime.video_images import ImageConverter, deinterlaced
from clipstep.runtime.video_times import LEAST_STEP, Timeline, spacing_of
from clipstep.runtime.wording import counted

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
PACKETS_FOR_RATE = 500
"""The packets at the start of a video that tell its rate."""
USUAL_RATE = 25
"""Frames a second of a video that states nothing and has one timestamp at most."""
HIGHEST_RATE = 480
"""Frames a second; a slow-motion video of a phone has 240."""
LONGEST_PAUSE = 1.0
"""Seconds between two frames of a file that frames fill where it is read at another rate; a longer pause is cut out."""
ONLY_THIS_FILE = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}


class VideoError(ClipstepError):
    """A video cannot be read, or is too short."""


class DamagedVideoError(VideoError):
    """A video cannot be decoded to its end; the frames before the damage were read."""


class TimedFrame(NamedTuple):
    """A frame of a video and when it is shown."""

    seconds: float
    """Seconds since the first frame, by the timestamps of the video."""
    image: Frame
    """`(H, W, 3)` uint8 RGB, upright and with square pixels."""


class Picture:
    """A decoded frame of a video, which is converted as far as it is asked for. A frame that is repeated is the same object."""

    def __init__(self, seconds: float, frame: av.VideoFrame, images: ImageConverter) -> None:
        self.seconds = seconds
        """Seconds since the first frame."""
        self._frame = frame
        self._images = images
        self._squares: dict[tuple[Box, int], Frame] = {}

    @cached_property
    def image(self) -> Frame:
        """All of the frame, `(H, W, 3)` uint8 RGB."""
        return self._images.image(self._frame)

    @property
    def shape(self) -> tuple[int, int]:
        """The height and width of the image."""
        return self._images.shape(self._frame)

    def square(self, box: Box, size: int) -> Frame:
        """Return a square of the image, resized to `(size, size, 3)` uint8 RGB; see `ImageConverter.square`."""
        if (box, size) not in self._squares:
            self._squares[box, size] = self._images.square(self._frame, box, size)
        return self._squares[box, size]

    def center_square(self, size: int) -> Frame:
        """Return the largest centred square, resized to `(size, size, 3)`: what a stream makes of the image."""
        return self.square(center_box(*self.shape), size)

    def timed(self, size: int | None) -> TimedFrame:
        """Return when the frame is shown, and its image, or the centred square of that size."""
        return TimedFrame(self.seconds, self.image if size is None else self.center_square(size))


def read_frames(
    path: str | Path,
    *,
    fps: float | None = None,
    size: int | None = None,
    short_side: int | None = None,
    cut: tuple[float, float] | None = None,
    whole: int = 1,
    threads: int = 0,
) -> Iterator[Frame]:
    """Yield the images of `read_timed_frames`.

    Example:
        ```python
        for frame in read_frames("video.mp4"):
            prediction = stream.push(frame)
        ```
    """
    return (frame.image for frame in read_timed_frames(path, fps=fps, size=size, short_side=short_side, cut=cut, whole=whole, threads=threads))


def read_timed_frames(
    path: str | Path,
    *,
    fps: float | None = None,
    size: int | None = None,
    short_side: int | None = None,
    cut: tuple[float, float] | None = None,
    whole: int = 1,
    threads: int = 0,
) -> Iterator[TimedFrame]:
    """Yield the frames of a video in display order, and when each of them is shown.

    The container's rotation and mirroring, the pixels' aspect ratio and the colours' tags are applied, and interlaced frames are deinterlaced. If
    frames change their size, all are scaled to the first one's. docs/videos.md says what each kind of video gives.

    Args:
        path: the video file.
        fps: leave out or repeat frames so as to yield this many a second, by the rule of a stream that gets timestamps (`Stream.push`). Training and
            evaluation read videos so. A pause of more than `LONGEST_PAUSE` is cut out. None yields every frame once.
        size: yield the largest centred square of each frame, resized to this height and width: what a stream makes of the frame, several times as
            fast, and the same within a level or two (docs/videos.md).
        short_side: scale larger frames down (bilinear) so that their short side has this many pixels; not together with `size`.
        whole: yield frames in groups of this number only, and drop the frames at the end that do not fill one.
        threads: how many threads decode; 0 for as many as there are cores.
        cut: yield only the frames from the first of these seconds to before the second one. The video is decoded from its start all the same.

    Raises:
        DamagedVideoError: the video cannot be decoded to its end. The frames before the damage were yielded.
        VideoError: the file is missing, has no video stream, cannot be decoded, or has fewer than `whole` frames (in `cut`).
        ClipstepError: `fps` is no finite number above 0.
    """
    if size is not None and short_side is not None:
        raise ClipstepError("frames are resized to a square or by their short side", got="size and short_side", expected="one of them")
    for picture in read_pictures(path, fps=fps, short_side=short_side, cut=cut, whole=whole, threads=threads):
        yield picture.timed(size)


def read_pictures(
    path: str | Path,
    *,
    fps: float | None = None,
    short_side: int | None = None,
    cut: tuple[float, float] | None = None,
    whole: int = 1,
    threads: int = 0,
) -> Iterator[Picture]:
    """Yield the frames of a video before they are converted; the arguments and errors are those of `read_timed_frames`."""
    count, taken, seconds = 0, 0, 0.0
    start, end = (second - LEAST_STEP for second in cut or (0.0, math.inf))
    resampler = None if fps is None else resampler_of_file(fps)
    try:
        with open_video(path) as (container, stream):
            timeline = Timeline(lambda: _spacing(path) or 1 / USUAL_RATE)
            images = ImageConverter(stream.sample_aspect_ratio, short_side)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            waiting: list[Picture] = []
            for frame in deinterlaced(container.decode(stream)):
                count += 1
                seconds = timeline.seconds(frame.time)
                if seconds < start:
                    continue
                if seconds >= end:
                    break
                picture = Picture(seconds, frame, images)
                for _ in range(resampler.copies(seconds) if resampler else 1):
                    taken += 1
                    waiting.append(picture)
                    if len(waiting) == whole:
                        yield from waiting
                        waiting.clear()
    except (av.FFmpegError, ValueError) as error:
        if count == 0:
            raise _undecodable(path, reason_of(error)) from error
        raise DamagedVideoError(
            f"{path}: cannot be decoded to its end",
            got=f"{reason_of(error)}, after {counted(count, 'frame')} and {seconds:.2f} s",
            expected="a video that FFmpeg reads",
            fix="re-encode or replace it",
        ) from error
    if count == 0:
        raise _undecodable(path, "no frame")
    if taken < whole:
        where = f" from {cut[0]:g} to {cut[1]:g} s" if cut else ""
        at_rate = "" if fps is None else f" at {fps:g} a second"
        got = f"{counted(taken, 'frame')}{where}{at_rate}"
        raise VideoError(f"{path}: too short", got=got, expected=f"at least {whole}", fix="use a longer video")


def resampler_of_file(fps: float) -> Resampler:
    """Return a resampler that reads a file at that rate; it cuts out what is longer than `LONGEST_PAUSE`.

    Raises:
        ClipstepError: `fps` is no finite number above 0.
    """
    check_rate(fps)
    return Resampler(fps, round(LONGEST_PAUSE * fps))


def frame_rate(path: str | Path) -> float:
    """Return how many frames a second a video usually shows, by the timestamps of its first frames.

    The durations of frames, and then the rate that the container states, are taken only for a video whose timestamps are all the same.

    Raises:
        VideoError: the file cannot be opened, has no video stream, states no frame rate, or has broken timestamps.
    """
    spacing = _spacing(path)
    if not spacing:
        raise VideoError(f"{path}: states no frame rate", expected="a video with a frame rate", fix="re-encode it")
    if spacing * HIGHEST_RATE < 1:
        raise VideoError(
            f"{path}: has broken timestamps",
            got=f"{1 / spacing:.0f} frames a second",
            expected=f"at most {HIGHEST_RATE}",
            fix="re-encode it at its true rate",
        )
    return 1 / spacing


def _spacing(path: str | Path) -> float | None:
    """Return the seconds from one frame to the next, or None if a video says nothing about it."""
    with open_video(path) as (container, stream):
        try:
            packets = [packet for packet in islice(container.demux(stream), PACKETS_FOR_RATE) if packet.size]
        except av.FFmpegError:  # The decoder says how far it gets.
            packets = []
        unit = stream.time_base or Fraction(1)
        stamps = (packet.dts if packet.pts is None else packet.pts for packet in packets)
        if spacing := spacing_of((stamp for stamp in stamps if stamp is not None), unit):
            return spacing
        if duration := statistics.median([packet.duration or 0 for packet in packets] or [0]):
            return float(duration * unit)
        return float(1 / stream.guessed_rate) if stream.guessed_rate else None


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
        raise _undecodable(path, reason_not_opened(error)) from error
    with container:
        yield container, video_stream_of(container, path)


def video_stream_of(container: av.container.InputContainer, path: Path | str) -> av.VideoStream:
    """Return the stream that FFmpeg takes for the best one, by default flags, damage and bit rate; the picture on a cover is none.

    Raises:
        VideoError: there is none, or FFmpeg does not know its codec. It begins with `path`.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        kinds = ["a cover picture" if other.disposition & Disposition.attached_pic else other.type for other in container.streams]
        raise VideoError(
            f"{path}: has no video stream",
            got=", ".join(kinds) or "no stream at all",
            expected="a file with a video stream",
            fix="choose another file",
        )
    if stream.codec_context is None:  # PyAV's type annotations say that it is never None.
        raise _undecodable(path, "a video codec that FFmpeg does not know")
    return stream


def reason_not_opened(error: Exception) -> str:
    """Return why FFmpeg did not open what `ONLY_THIS_FILE` or another list of formats restricts."""
    unlisted = getattr(error, "errno", None) == errno.EINVAL  # FFmpeg's error for a format that is not on the list.
    return "a playlist or another format that holds no video itself" if unlisted else reason_of(error)


def reason_of(error: Exception) -> str:
    """Return FFmpeg's message without its number and path."""
    return str(getattr(error, "strerror", None) or error)


def _undecodable(path: str | Path, reason: str) -> VideoError:
    return VideoError(f"{path}: cannot be decoded", got=reason, expected="a video that FFmpeg reads", fix="re-encode or replace it")
