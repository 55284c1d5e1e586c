"""When the frames of a video are shown, by their presentation timestamps. The rate that a container states may be 20 times too high."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cached_property

import numpy as np

JUMP = 1.0
"""A timestamp that goes back by more than this many seconds starts another recording in the same file."""
LEAST_STEP = 1e-6
"""Timestamps that are closer, in seconds, are the same, but for rounding."""


class Timeline:
    """Turns the timestamps of frames, in display order, to seconds since the first frame. They always increase.

    A frame without a timestamp, or with one that is not after the time of the frame before, comes one spacing after that frame. If the timestamp is
    more than `JUMP` before it, all later frames are moved with it.
    """

    def __init__(self, find_spacing: Callable[[], float]) -> None:
        """`find_spacing`: returns the seconds from one frame to the next. It is called only if the timestamps alone do not do."""
        self._find_spacing = find_spacing
        self._origin: float | None = None
        self._last: float | None = None

    @cached_property
    def _spacing(self) -> float:
        return self._find_spacing()

    def seconds(self, timestamp: float | None) -> float:
        """Return when the next frame is shown, from its presentation timestamp in seconds."""
        if self._last is None:
            self._origin, self._last = timestamp, 0.0
            return 0.0
        own = None if timestamp is None or self._origin is None else timestamp - self._origin
        if own is not None and own - self._last > LEAST_STEP:
            self._last = own
            return own
        following = self._last + self._spacing
        if timestamp is not None and (own is None or self._last - own > JUMP):
            self._origin = timestamp - following
        self._last = following
        return following


def spacing_of(timestamps: Iterable[int], time_base: Fraction) -> float | None:
    """Return the seconds from one frame to the next, or None if all timestamps are the same.

    It is the mean of the spacings that are within a third of the median: the median alone would be 33 ms for 30 frames a second in a container that
    counts milliseconds, and the mean of all would be too long for a video with pauses.
    """
    spacings = np.diff(np.array(sorted(set(timestamps)), np.int64))
    if len(spacings) == 0:
        return None
    median = np.median(spacings)
    usual = spacings[np.abs(spacings - median) * 3 <= median]
    return float(time_base) * float(usual.mean() if len(usual) else median)
