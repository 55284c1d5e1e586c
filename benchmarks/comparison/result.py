"""What a comparison of two files of records gives."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["faster", "slower", "cannot tell", "fewer", "more", "equal"]
"""Of step times the first three, of instruction counts the others."""


@dataclass(frozen=True)
class ComparedConfiguration:
    """A configuration that both files hold: how `b` compares with `a`."""

    name: str
    """The artifact, its engine and the threads, such as `step.onnx, onnxruntime, 1 thread`; more only where it takes more to tell records apart."""
    unit: str
    """`ms`; `instructions`; or `times NAME` for step times that are measured by those of the configuration NAME."""
    a: float
    """The median step time of `a`, or the instructions of a step."""
    b: float
    ratio: float
    """`b / a`; above 1, `b` takes longer."""
    interval: tuple[float, float] | None
    """The confidence interval of the ratio. None for instructions, which are exact, and for a run of a single turn, of which nothing can be known."""
    verdict: Verdict
    runs: tuple[int, int]
    """How many runs `a` and `b` hold."""
    limit: float | None = None
    """The largest ratio allowed, if a limit is for this configuration."""

    @property
    def exceeds_limit(self) -> bool:
        """Whether the ratio is surely above the limit: so is the lower end of its interval, or, of instructions, the ratio itself."""
        if self.limit is None:
            return False
        if self.unit == "instructions":
            return self.ratio > self.limit
        return self.interval is not None and self.interval[0] > self.limit


@dataclass(frozen=True)
class Comparison:
    """Two files of records, compared."""

    a: str
    """What was compared: the path of the file, or `a` for records that were given as such."""
    b: str
    configurations: tuple[ComparedConfiguration, ...]
    """Those that both files hold."""
    only_in_a: tuple[str, ...]
    """The names of the configurations that only `a` holds."""
    only_in_b: tuple[str, ...]
    notes: tuple[str, ...]
    """What differs between the files beside the measurements, such as devices, and what the intervals do not cover."""
    confidence: float
    """The probability with which all intervals hold together."""
    method: str
    """How the intervals were computed, in one sentence."""

    @property
    def above_limits(self) -> tuple[ComparedConfiguration, ...]:
        """The configurations that surely exceed their limit."""
        return tuple(each for each in self.configurations if each.exceeds_limit)
