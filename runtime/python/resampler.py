"""Take the frames of a source of any rate at a model's rate, by when they were taken. The Kotlin runtime has the same rule and passes the same tests.

    camera     0    1    2    3    4    5        30 a second
    wanted     0         1         2             15 a second
    copies     1    0    1    0    1    0

The wanted times are one period of the wanted rate apart. For each, the first frame is used that comes no earlier than `EARLY` periods before it.
"""

import math

from clipstep.runtime.errors import ClipstepError

EARLY = 0.45
"""Not a half: of twice the rate, every second frame is half a period early, and rounding would decide between two frames each time."""


SAME_RATE = 1.01
"""Rates that differ by a smaller factor are called the same; few frames are left out or repeated."""


def check_rate(fps: object) -> None:
    """Check a number of frames a second.

    Raises:
        ClipstepError: it is no finite number above 0.
    """
    if not (isinstance(fps, int | float) and math.isfinite(fps) and fps > 0):
        raise ClipstepError("fps must be a number above 0", got=repr(fps), expected="a number above 0")


class Resampler:
    """Says how often each frame of one source is to be used."""

    def __init__(self, fps: float, longest: int) -> None:
        """`fps`: the wanted rate; `longest`: a gap of more than so many frames of that rate, or a step back by more, starts another video."""
        self._fps = fps
        self._longest = longest
        self.reset()

    def reset(self) -> None:
        """Start again with the next frame."""
        self._start = 0.0
        self._given = 0
        self.restarted = False
        """Whether the last frame started another video."""

    def copies(self, timestamp: float) -> int:
        """Return how often the frame of that time, in seconds, is used: 0, 1, or more if the source is slower.

        Frames that are not later than those before are left out, until time has caught up.

        Raises:
            ClipstepError: the time is no finite number.
        """
        if not math.isfinite(timestamp):
            raise ClipstepError("a timestamp must be a finite number of seconds", got=timestamp)
        copies = self._wanted(timestamp) - self._given
        self.restarted = self._given > 0 and abs(copies) > self._longest
        if self.restarted or self._given == 0:
            self._start, self._given = timestamp, 1
            return 1
        self._given += max(copies, 0)
        return max(copies, 0)

    def _wanted(self, timestamp: float) -> int:
        """Return how many frames are wanted up to that time."""
        return math.floor((timestamp - self._start) * self._fps + EARLY) + 1
