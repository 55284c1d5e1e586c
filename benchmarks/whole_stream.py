"""Everything that a stream does, timed for one subclip after the other: a video is decoded, its frames become squares, the model makes a step."""

import time
from collections.abc import Iterator
from pathlib import Path

from clipstep.benchmarks.records import Parts
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.interface import Input
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.video import Picture, read_pictures


def check_video(bundle: Bundle, video: Path) -> None:
    """Check that a whole stream of this video can be measured.

    Raises:
        ClipstepError: the bundle takes no RGB frames.
        VideoError: the video cannot be read, or is shorter than a subclip.
    """
    given = bundle.manifest.input
    if not given.takes_video:
        raise ClipstepError(f"{bundle.path}: takes no video frames", got=f"a bundle for {given.content}", fix="measure it without --video")
    next(read_pictures(video, fps=given.fps, whole=_frames(given)))


class WholeStream:
    """A stream of a video that begins anew whenever it ends, on one model."""

    def __init__(self, model: StepModel, video: Path, threads: int) -> None:
        """`threads`: how many decode."""
        self._model = model
        self._stream = model.stream()
        self._pictures = self._endless(video, threads)

    def _endless(self, video: Path, threads: int) -> Iterator[Picture]:
        while True:
            yield from read_pictures(video, fps=self._model.interface.input.fps, threads=threads)

    def subclip(self) -> Parts:
        """Go on by the frames of a subclip, and return the milliseconds of each part."""
        decode, resize, step = 0.0, 0.0, 0.0
        for _ in range(_frames(self._model.interface.input)):
            begin = time.perf_counter()
            picture = next(self._pictures)
            decoded = time.perf_counter()
            square = picture.center_square(self._model.interface.input.shape[1])
            resized = time.perf_counter()
            self._stream.push(square)
            decode, resize, step = decode + decoded - begin, resize + resized - decoded, step + time.perf_counter() - resized
        return Parts(decode_ms=decode * 1e3, resize_ms=resize * 1e3, step_ms=step * 1e3)


def _frames(given: Input) -> int:
    return given.shape[0] * given.frame_stride
