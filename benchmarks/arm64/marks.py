"""The counter's marks: the instructions executed up to certain system calls of the program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.benchmarks.records import Counts

CLOCK_GETTIME, GETPID, GETPPID, GETUID = 113, 172, 173, 174
"""The ARM64 Linux numbers of the system calls that ``counter.c`` watches. The runners call getppid before and after each step."""


@dataclass(frozen=True)
class Mark:
    """A system call, and the counts from the program's start up to it."""

    call: int
    counts: Counts

    @classmethod
    def read(cls, path: Path) -> "list[Mark]":
        """Read the marks that the counter wrote to a file."""
        lines = (map(int, line.split()) for line in path.read_text(encoding="utf-8").splitlines())
        return [cls(call, Counts(**dict(zip(Counts.model_fields, values, strict=True)))) for call, *values in lines]


def steps_of(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Return the marks of each step, including the two calls of getppid around it."""
    borders = [index for index, mark in enumerate(marks) if mark.call == GETPPID]
    return [list(marks[start : end + 1]) for start, end in zip(borders[::2], borders[1::2], strict=True)]


def step_counts(marks: Sequence[Mark]) -> list[Counts]:
    """Return the counts of each step."""
    return [step[-1].counts - step[0].counts for step in steps_of(marks)]
