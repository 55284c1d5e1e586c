"""Read live video: the frames of a camera or a network stream, decoded in a thread of their own so that the newest are at hand."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Self

import av

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.live.newest import Newest
from clipstep.runtime.live.places import Place, address, camera
from clipstep.runtime.video import USUAL_RATE, DamagedVideoError, Picture, TimedFrame, VideoError, reason_not_opened, reason_of, video_stream_of
from clipstep.runtime.video_images import ImageConverter, deinterlaced
from clipstep.runtime.video_times import LEAST_STEP, Timeline, spacing_of
from clipstep.runtime.wording import counted

ROOM = 8
"""How many frames wait at most: about what comes during a step. More would make predictions late, and a frame of 4K has 12 MB."""
PATIENCE = 10.0
"""Seconds without an answer or a frame after which a connection counts as lost."""
RECONNECT = 30.0
"""Seconds for which a network stream that was lost is tried again, unless the user says otherwise."""
TIME_FOR_RATE, MICROSECONDS = 1.0, 1_000_000
"""Seconds of video that tell its rate; and how their times are counted."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two tries; each pause is twice as long as the one before."""
NO_TIMESTAMPS = 0x80
"""FFmpeg's flag of formats without timestamps, such as JPEG pictures one after the other: a frame's time is then when it arrives."""


class LiveVideo:
    """A video that goes on while it is read. It can be read once.

    A thread decodes. If its frames are not taken in time, the oldest are dropped, so that predictions are never late. The seconds of a frame are
    counted from the first one, by the timestamps of the source; while a connection is lost, by the clock.

    Example:
        ```python
        with LiveVideo.camera("0") as camera:
            for frame in camera.frames():
                if prediction := stream.push(frame.image, frame.seconds):
                    print(prediction.top(1))
        ```
    """

    def __init__(self, place: Place, reconnect: float, duration: float | None) -> None:
        """Use `LiveVideo.camera` or `LiveVideo.url`."""
        if not reconnect >= 0:
            raise ClipstepError("reconnect must be a number of seconds", got=reconnect, expected="0 or more")
        if duration is not None and not duration > 0:
            raise ClipstepError("duration must be a number of seconds", got=duration, expected="more than 0")
        self.name = place.name
        """What is printed of it: of an address, no user's name, no password, and nothing after a `?`."""
        self.rate: float | None = None
        """How many frames come a second, by the timestamps of the first second; None before."""
        self.note: Callable[[str], object] = lambda _: None
        """Is called, in the thread that decodes, with each thing that the user should know, such as that a connection was lost."""
        self._place, self._reconnect, self._duration = place, reconnect, math.inf if duration is None else duration
        self._waiting: Newest[Picture] = Newest(ROOM)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._decoded = 0
        self._first: list[int] = []
        self._seconds, self._began = 0.0, 0.0

    @classmethod
    def camera(cls, device: str = "0", *, duration: float | None = None) -> Self:
        """Return the video of a camera of this machine.

        Args:
            device: its number, or its name as the system has it, such as `/dev/video2`.
            duration: end the video after so many seconds.

        Raises:
            ClipstepError: PyAV's FFmpeg has no cameras on this system, or `duration` is no number above 0.
        """
        return cls(camera(device), 0.0, duration)

    @classmethod
    def url(cls, url: str, *, reconnect: float = RECONNECT, duration: float | None = None) -> Self:
        """Return the video at a network address: RTSP, or a stream or a file over HTTP.

        No frame of a file is dropped: its server waits. Playlists are refused, because they would make FFmpeg open other addresses.

        Args:
            url: an address that begins with `rtsp://`, `rtsps://`, `http://` or `https://`.
            reconnect: for how many seconds a stream that was lost is tried again.
            duration: end the video after so many seconds.

        Raises:
            ClipstepError: it is no such address, `reconnect` is below 0, or `duration` is no number above 0.
        """
        return cls(address(url), reconnect, duration)

    @property
    def dropped(self) -> int:
        """How many frames were decoded and never taken."""
        return self._waiting.dropped

    def frames(self, *, size: int | None = None) -> Iterator[TimedFrame]:
        """Yield the frames as they come.

        Args:
            size: yield the largest centred square of each frame, resized to this height and width, which is several times as fast.

        Raises:
            VideoError: the source cannot be opened, or gives no frame.
            DamagedVideoError: it was lost and did not come back. The frames before were yielded.
            ClipstepError: the video was read before.
        """
        for picture in self.pictures():
            yield picture.timed(size)

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames before they are converted; the errors are those of `frames`."""
        if self._thread is not None:
            raise ClipstepError(f"{self.name}: was read before", fix="open it again")
        self._thread = threading.Thread(target=self._read, name=f"read {self.name}", daemon=True)
        self._thread.start()
        try:
            for picture in self._waiting:
                if picture.seconds >= self._duration - LEAST_STEP:
                    return
                yield picture
            if self._error is not None:
                raise self._error
        finally:
            self.stop()

    def stop(self) -> None:
        """End the video: `frames` yields no more. Any thread and a signal's handler may call it."""
        self._stopped.set()
        self._waiting.end(at_once=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(2 * FIRST_PAUSE)  # A connection that gives nothing ends itself after `PATIENCE`.

    def _read(self) -> None:
        try:
            self._read_all()
        except BaseException as error:  # Raised again in the thread that takes the frames.
            self._error = error
        finally:
            self._waiting.end()

    def _read_all(self) -> None:
        """Read one connection after the other until the video is over."""
        lost: float | None = None
        why, pause = "", FIRST_PAUSE
        while not self._stopped.is_set():
            heard = time.monotonic()
            try:
                for picture in self._connection():
                    if lost is not None:
                        self.note(f"{self.name}: connected again after {time.monotonic() - lost:.1f} s")
                        lost, pause = None, FIRST_PAUSE
                    self._waiting.give(picture, wait=self._is_recording)
                    heard = time.monotonic()
                if self._is_recording and self._decoded > 0:
                    return
                reason = "the end of the stream"
            except VideoError as error:
                if self._decoded == 0:
                    raise
                reason = str(error)
            except (av.FFmpegError, ValueError) as error:
                reason = reason_of(error)
            if self._stopped.is_set():
                return
            if time.monotonic() - heard >= PATIENCE:
                reason = f"no frame for {PATIENCE:g} s"
            if self._decoded == 0:
                raise self._unreadable(reason)
            if lost is None:
                lost, why = time.monotonic(), reason
                self.note(f"{self.name}: lost at {self._seconds:.2f} s: {reason}")
            left = 0.0 if self._is_recording else lost + self._reconnect - time.monotonic()
            if left <= 0:
                got = f"{why} after {counted(self._decoded, 'frame')} and {self._seconds:.2f} s{'' if reason == why else f', then {reason}'}"
                raise DamagedVideoError(f"{self.name}: lost", got=got, expected="a video that goes on", fix=self._place.fix)
            self._stopped.wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connection(self) -> Iterator[Picture]:
        """Connect, and yield the frames until the connection ends, or the video is stopped."""
        self._is_recording = False
        with self._opened() as container:
            stream = video_stream_of(container, self.name)
            stream.thread_type = "SLICE"  # Threads for whole frames would make each frame late.
            self._is_recording = self._place.is_web and bool(container.duration)
            has_times = not container.format.flags & NO_TIMESTAMPS
            images, timeline = ImageConverter(stream.sample_aspect_ratio, None), Timeline(lambda: 1 / (self.rate or USUAL_RATE))
            start = None if self._decoded else 0.0
            for frame in deinterlaced(_frames(container, stream)):
                if self._stopped.is_set():
                    return
                now = time.monotonic()
                if self._decoded == 0:
                    self._began = now
                if start is None:
                    start = max(self._seconds + LEAST_STEP, now - self._began)
                self._seconds = start + timeline.seconds(frame.time if has_times else now)
                self._decoded += 1
                if self.rate is None:
                    self._measure_rate()
                yield Picture(self._seconds, frame, images)

    def _measure_rate(self) -> None:
        self._first.append(round(self._seconds * MICROSECONDS))
        if self._seconds >= TIME_FOR_RATE and (spacing := spacing_of(self._first, Fraction(1, MICROSECONDS))):
            self.rate = 1 / spacing

    def _opened(self) -> av.container.InputContainer:
        try:
            return av.open(self._place.file, format=self._place.format, options=dict(self._place.options), timeout=PATIENCE)
        except av.ArgumentError as error:
            raise self._unreadable(reason_not_opened(error)) from error

    def _unreadable(self, reason: str) -> VideoError:
        return VideoError(f"{self.name}: cannot be read", got=reason, expected="a video that FFmpeg reads", fix=self._place.fix)


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames that can be decoded, until none comes for `PATIENCE`. A camera is joined between two key frames, and loses packets."""
    heard = time.monotonic()
    for packet in container.demux(stream):
        with suppress(av.InvalidDataError):
            for frame in packet.decode():
                yield frame
                heard = time.monotonic()
        if time.monotonic() - heard >= PATIENCE:
            return
