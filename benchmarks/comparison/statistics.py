"""The ratio of two medians of step times, with its confidence interval.

The steps of a turn are not independent of each other, and on a shared computer neighbouring turns are not quite independent either: other work comes
and goes in seconds. Treating each step as an observation of its own would make intervals far too narrow. So the units are

- blocks of consecutive whole turns, at most eight in a run, if a file holds one run: a circular block bootstrap over the turns gives the variance of
  the median (Politis and Romano, "A circular block-resampling procedure for stationary data", 1992). It is taken from the middle of the resamples,
  because a few that drew the same burst of other work many times say little about the median;
- the runs, if a file holds several: the variance of their medians is that of what changes from run to run, too.

The interval is symmetric around the logarithm of the ratio, with the quantile of Student's t (Welch, 1947).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
BLOCKS = 8
"""Into how many blocks a run is divided at most."""
RESAMPLES = 1000
MIDDLE = 0.8
"""The share of the resamples, around their median, whose width gives the variance as that of a normal distribution."""
SEED = 0
LARGEST_BATCH = 2_000_000
"""The most step times that are resampled at once, to bound memory."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """The step times of a configuration in one run of `clipstep bench`, `(turns, steps)`, in milliseconds."""

    step_ms: Array
    reference_ms: Array | None = None
    """Those of the configuration that this one is measured by, which took its turns beside it; of the same shape."""


@dataclass(frozen=True)
class Median:
    """The median step time of one file: over all steps of a run, or the geometric mean of the runs' medians."""

    log: float
    variance: float | None
    """Of `log`; None if there is one run of a single turn, of which nothing can be known."""
    units: int
    """How many independent units the variance is of."""


def median_of(runs: Sequence[Run]) -> Median:
    """Estimate the median of a configuration's runs and its variance; relative to the reference's median, if the runs have one."""
    logs = np.array([_log_medians(run, np.arange(len(run.step_ms))[None])[0] for run in runs])
    if len(runs) > 1:
        return Median(float(logs.mean()), float(logs.var(ddof=1)) / len(runs), len(runs))
    variance, blocks = _bootstrap(runs[0])
    return Median(float(logs[0]), variance, blocks)


def interval_of(a: Median, b: Median, comparisons: int) -> tuple[float, float] | None:
    """Return the confidence interval of the ratio of `b` to `a`, or None if a variance is unknown.

    The intervals of all `comparisons` hold together with probability `CONFIDENCE`: each has a `comparisons`-th of the error (Bonferroni).
    """
    if a.variance is None or b.variance is None:
        return None
    middle, variance = b.log - a.log, a.variance + b.variance
    if variance == 0:
        return math.exp(middle), math.exp(middle)
    degrees = variance**2 / (a.variance**2 / (a.units - 1) + b.variance**2 / (b.units - 1))
    half = t_quantile(1 - (1 - CONFIDENCE) / comparisons, math.floor(degrees + 1e-9)) * math.sqrt(variance)
    return math.exp(middle - half), math.exp(middle + half)


@cache
def t_quantile(confidence: float, degrees: int) -> float:
    """Return the value that the absolute value of Student's t with so many `degrees` of freedom exceeds with probability `1 - confidence`.

    With `t = sqrt(degrees) * tan(angle)` the density becomes `cos(angle) ** (degrees - 1)`, which is summed over a grid of angles.
    """
    edges = np.linspace(0, math.pi / 2, 200_001)
    share = np.concatenate([[0.0], np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (degrees - 1))])
    return math.sqrt(degrees) * math.tan(float(np.interp(confidence, share / share[-1], edges)))


def _bootstrap(run: Run) -> tuple[float | None, int]:
    """Return the variance of the logarithm of the median by a circular block bootstrap over turns, and how many blocks the run holds."""
    turns = len(run.step_ms)
    length = math.ceil(turns / BLOCKS)
    blocks = turns // length
    if blocks < 2:
        return None, blocks
    random = np.random.default_rng(SEED)
    starts = random.integers(0, turns, (RESAMPLES, math.ceil(turns / length)))
    chosen = ((starts[:, :, None] + np.arange(length)) % turns).reshape(RESAMPLES, -1)[:, :turns]
    parts = np.array_split(chosen, math.ceil(RESAMPLES * run.step_ms.size / LARGEST_BATCH))
    logs = np.concatenate([_log_medians(run, part) for part in parts if len(part)])
    width = np.quantile(logs, (1 + MIDDLE) / 2) - np.quantile(logs, (1 - MIDDLE) / 2)
    deviation = float(width) / (2 * NormalDist().inv_cdf((1 + MIDDLE) / 2))
    return deviation**2 * blocks / (blocks - 1), blocks


def _log_medians(run: Run, chosen: NDArray[Any]) -> Array:
    """Return the logarithms of the medians `(n,)` over the turns `chosen` `(n, turns)`, which are the same of the run and of its reference."""
    logs: Array = np.log(np.median(run.step_ms[chosen].reshape(len(chosen), -1), axis=1))
    if run.reference_ms is not None:
        logs = logs - np.log(np.median(run.reference_ms[chosen].reshape(len(chosen), -1), axis=1))
    return logs
