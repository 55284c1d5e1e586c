"""The marks that the counter leaves: what had been executed when the program made a certain system call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.benchmarks.records import Counts

CLOCK_GETTIME, GETPID, GETPPID, GETUID = 113, 172, 173, 174
"""ARM64 Linux's numbers of the system calls that ``counter.c`` watches. getppid stands around each step."""


@dataclass(frozen=True)
class Mark:
    """A system call, and the counts since the program's start."""

    call: int
    counts: Counts

    @classmethod
    def read(cls, path: Path) -> "list[Mark]":
        """The marks in a file that the counter wrote."""
        lines = (map(int, line.split()) for line in path.read_text(encoding="utf-8").splitlines())
        return [cls(call, Counts(**dict(zip(Counts.model_fields, values, strict=True)))) for call, *values in lines]


def steps_of(marks: Sequence[Mark]) -> list[list[Mark]]:
    """The marks of each step, the two calls of getppid around it included."""
    borders = [index for index, mark in enumerate(marks) if mark.call == GETPPID]
    return [list(marks[start : end + 1]) for start, end in zip(borders[::2], borders[1::2], strict=True)]


def step_counts(marks: Sequence[Mark]) -> list[Counts]:
    """What each step cost."""
    return [step[-1].counts - step[0].counts for step in steps_of(marks)]
