"""The axes of charts: where a value lies, and which values are labelled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROUND = (1, 2, 5, 10)
TICKS = 5
"""How many values of an axis are labelled, about."""
WIDEST = 8
"""How many times the smallest value the largest one may be on a linear axis."""
WIDEST_IN_STEPS = 400
"""How many times the lower end the upper one may be on a logarithmic axis that is labelled at 1, 2 and 5, rather than at powers of ten."""


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from ``low`` to ``high``."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1; values beyond an end lie at it."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Return the values to label, which are round."""
        if not self.log:
            step = _round_up((self.high - self.low) / TICKS)
            return [step * index for index in range(math.floor(self.high / step + 1e-9) + 1)]
        first, last = math.floor(math.log10(self.low) + 1e-9), math.ceil(math.log10(self.high) - 1e-9)
        few = self.high / self.low <= WIDEST_IN_STEPS
        powers = range(first, last + 1, 1 if few else math.ceil((last - first) / TICKS))
        ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if few else (1,))]
        return [tick for tick in ticks if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]

    @property
    def scale(self) -> str:
        """What the name of the axis says of a logarithmic one."""
        return ", logarithmic" if self.log else ""


def fitting(values: Sequence[float]) -> Axis:
    """Return an axis for values above 0: linear from 0, or logarithmic if they differ by more than `WIDEST` times."""
    return logarithmic(values) if max(values) > WIDEST * min(values) else linear(values)


def linear(values: Sequence[float]) -> Axis:
    """Return a linear axis from 0 to a little beyond the largest value."""
    largest = max(values, default=0.0)
    return Axis(0, largest * 1.06 if largest > 0 else 1.0)


def logarithmic(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis between round numbers around the values, which are above 0."""
    low, high = 1 / _round_up(1 / min(values)), _round_up(max(values))
    return Axis(low, high if high > low else 10 * low, log=True)


def _round_up(value: float) -> float:
    """Return the next larger round number, such as 2 or 50, or the value itself if it is one."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in ROUND if step * unit >= value * (1 - 1e-9))
