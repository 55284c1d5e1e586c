"""When the frames of a video are shown in a window."""

LONGEST_STILL = 0.1
"""Seconds: if all frames are late, one is shown so often."""


class Pace:
    """Shows frames at the video's own speed, and leaves out those that come too late.

    A frame is too late when the time of the next one has come, too, if that is as far from it as the one before. So a video that is read and run
    faster than it plays catches up after a slow step, and one that is not is shown as fast as it is run.
    """

    def __init__(self) -> None:
        self.shown = self.left_out = 0
        """How many frames were shown, and how many were not."""
        self._start: float | None = None
        self._before = 0.0
        self._shown_at = 0.0

    def wait(self, seconds: float, now: float) -> float | None:
        """Return how many seconds to wait before a frame is shown, or None if it is left out.

        Args:
            seconds: when the frame is shown in the video.
            now: the time of a clock, in seconds.
        """
        if self._start is None:
            self._start = now - seconds
        wait = self._start + seconds - now
        period, self._before = seconds - self._before, seconds
        if wait < -period and now < self._shown_at + LONGEST_STILL:
            self.left_out += 1
            return None
        self.shown += 1
        self._shown_at = now + max(wait, 0.0)
        return max(wait, 0.0)

    def until(self, seconds: float, now: float) -> float:
        """Return how many seconds there are until a time of the video; 0 if it has passed."""
        return max(0.0, (now if self._start is None else self._start + seconds) - now)
