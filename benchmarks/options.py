"""How much a benchmark measures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import check_threads
from clipstep.runtime.errors import ClipstepError

ROUNDS, STEPS = 20, 5
"""The defaults: how often the configurations take turns, and how many steps a turn has."""


@dataclass(frozen=True)
class BenchOptions:
    """How much to measure: ``rounds`` turns of ``steps`` steps for each thread count.

    Raises:
        ClipstepError: a value is of another type, or too small.
    """

    threads: tuple[int, ...]
    rounds: int = ROUNDS
    steps: int = STEPS
    pause_ms: float = 0
    """Milliseconds to wait before each step, as a live stream waits for its frames."""
    spinning: bool = False
    """Whether artifacts whose engine can do so are also measured with threads that wait busily between steps."""

    video: Path | None = None
    """A video whose whole stream is measured, too: decoding, resizing and steps."""

    def __post_init__(self) -> None:
        for name, value in (("rounds", self.rounds), ("steps", self.steps)):
            if not _is_count(value):
                raise ClipstepError(f"{name} must be a whole number", got=repr(value), expected="at least 1")
        if not self.threads or not all(map(_is_count, self.threads)):
            raise ClipstepError("threads are whole numbers", got=repr(self.threads), expected="at least one, none below 1")
        if isinstance(self.pause_ms, bool) or not isinstance(self.pause_ms, int | float) or not 0 <= self.pause_ms < math.inf:
            raise ClipstepError("pause_ms is a number of milliseconds", got=repr(self.pause_ms), expected="at least 0")


def thread_counts(given: Sequence[int] | None) -> tuple[int, ...]:
    """Return the thread counts to measure with, each once: those given, or else 1 and, where there is a second core, 2.

    Raises:
        ClipstepError: they are no list of whole numbers of at least 1, or this computer has fewer cores.
    """
    if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
        raise ClipstepError("threads are whole numbers", got=repr(given), expected="a list such as [1, 2]")
    counts = BenchOptions(tuple(dict.fromkeys(given if given is not None else (1, min(2, available_cores()))))).threads
    check_threads(max(counts))
    return counts


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
