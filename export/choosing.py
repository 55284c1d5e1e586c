"""Chooses a precision for a platform out of those that `--tune` measured: the cheapest that is accurate, or the most accurate within a budget."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipstep.export.evaluating import EXACT, fall_in_points
from clipstep.runtime.bundle import this_machine
from clipstep.runtime.bundle.choice import Budget, Choice, CostUnit, MeasuredVariant, TriedPrecision
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.precision import FLOATS, PRECISIONS

COST_UNITS: dict[str, str] = {"ms": "ms", "M ARM64 instructions": "M instructions"}
TunedArtifact = tuple[Artifact, Sequence[MeasuredVariant]]
"""An artifact that tuning wrote, and the variants of it that were measured."""


@dataclass(frozen=True)
class Measured:
    """What a variant of an artifact was measured to take."""

    cost: float
    """Of a step on one thread, in the unit that the function that measured it gives."""
    peak_memory_bytes: int | None = None
    """See `Budget`; None if it was not measured."""
    fault: str | None = None
    """See `MeasuredVariant`."""


class NothingFitsError(ClipstepError):
    """No precision of a target is within the limits that were given for a platform. `tried` says what each of them took."""

    def __init__(
        self, target: str, platform: str, unit: CostUnit, tried: Sequence[TriedPrecision], budget: Budget | None, max_accuracy_drop: float | None
    ) -> None:
        self.unit, self.tried, self.budget = unit, tuple(tried), budget
        given = [str(budget)] if budget is not None else []
        given += [f"--max-accuracy-drop {max_accuracy_drop:g}"] if max_accuracy_drop is not None else []
        limits = " and ".join(given) or "the bound of its precision"
        super().__init__(
            f"{target} for {platform}: nothing that was tried is within {limits}",
            got="; ".join(f"{one.precision} ({one.variant}): {one.verdict}" for one in tried),
            fix="allow more, or try other precisions",
        )


def best_variant(variants: Sequence[MeasuredVariant], budget: Budget | None, unit: str) -> MeasuredVariant:
    """Return the variant that stands for its precision, of those without a fault if there are such.

    It is the cheapest. With a budget it is, of those within it, the one with the least error or, where errors were not measured, the cheapest; if
    none is within it, it is the one that is nearest to it. Of equals it is the cheapest and then the first.
    """
    right = [one for one in variants if one.fault is None] or variants
    if budget is None:
        return min(right, key=lambda one: one.cost)
    fitting = [one for one in right if within(one, budget, unit)]
    if fitting:
        return min(fitting, key=lambda one: (one.max_relative_error or 0.0, one.cost))
    return min(right, key=lambda one: (max(share for share, _ in _shares(one, budget, unit)), one.cost))


def choose(artifacts: Sequence[TunedArtifact], budget: Budget | None = None, max_accuracy_drop: float | None = None) -> Choice:
    """Choose among the precisions of one target and platform. Each is an artifact, which may have been evaluated.

    What has a fault or exceeds the budget, or whose top-1 falls by more than `max_accuracy_drop` points, is ruled out. Without a budget the
    cheapest of the others is chosen, but what loses accuracy although no limit was given, and int8 whose accuracy is not known, only if nothing
    else is left. With a budget it is what loses the least accuracy and, of equals, has the highest precision.

    Args:
        artifacts: an artifact of each precision.
        budget: the most that one may take.
        max_accuracy_drop: by how many percentage points its top-1 may fall against float32; None if that was not said.

    Raises:
        NothingFitsError: none is left.
    """
    first, tuning = artifacts[0][0], artifacts[0][0].tuning
    assert tuning is not None
    ruled_out = {
        artifact.precision: _ruled_out(artifact, _own(artifact, variants), tuning.unit, budget, max_accuracy_drop) for artifact, variants in artifacts
    }
    left = [(artifact, _own(artifact, variants)) for artifact, variants in artifacts if ruled_out[artifact.precision] is None]
    doubts = {artifact.precision: _doubt(artifact, max_accuracy_drop) for artifact, _ in left}
    if budget is None:
        left.sort(key=lambda one: (doubts[one[0].precision] is not None, one[1].cost))
    else:
        left.sort(key=lambda one: _loss(one[0]))
    verdicts = {
        artifact.precision: _verdict(artifact, left[0][0], doubts[artifact.precision], budget, len(left), len(artifacts)) for artifact, _ in left
    }
    tried = [
        TriedPrecision(
            precision=artifact.precision,
            variant=_own(artifact, variants).variant,
            accuracy=artifact.accuracy,
            verdict=ruled_out[artifact.precision] or verdicts[artifact.precision],
            variants=tuple(variants),
        )
        for artifact, variants in artifacts
    ]
    if not left:
        raise NothingFitsError(first.target, first.platform, tuning.unit, tried, budget, max_accuracy_drop)
    return Choice(
        target=first.target,
        platform=first.platform,
        precision=left[0][0].precision,
        unit=tuning.unit,
        measured_on=this_machine(),
        budget=budget,
        max_accuracy_drop=max_accuracy_drop,
        tried=tuple(tried),
    )


def choose_each(
    tuned: Sequence[TunedArtifact], budget: Budget | None, max_accuracy_drop: float | None
) -> tuple[tuple[Choice, ...], list[Artifact], dict[str, ClipstepError]]:
    """Choose for each target and platform.

    Returns:
        The choices; the artifacts to leave out, which are neither chosen nor of float32, or whose target failed; and the errors of the targets of
        which nothing is within the limits on one of the platforms.
    """
    choices, failed = list[Choice](), dict[str, ClipstepError]()
    for kind in dict.fromkeys((artifact.target, artifact.platform) for artifact, _ in tuned):
        try:
            choices.append(choose([one for one in tuned if (one[0].target, one[0].platform) == kind], budget, max_accuracy_drop))
        except NothingFitsError as error:
            failed.setdefault(kind[0], error)
    choices = [choice for choice in choices if choice.target not in failed]
    kept = {(choice.target, choice.platform, precision) for choice in choices for precision in (choice.precision, EXACT)}
    left_out = [artifact for artifact, _ in tuned if (artifact.target, artifact.platform, artifact.precision) not in kept]
    return tuple(choices), left_out, failed


def _own(artifact: Artifact, variants: Sequence[MeasuredVariant]) -> MeasuredVariant:
    """Return the variant that the artifact is."""
    assert artifact.tuning is not None
    return next(one for one in variants if one.variant == artifact.tuning.chosen)


def within(variant: MeasuredVariant, budget: Budget | None, unit: str) -> bool:
    """Whether a variant takes no more than the budget allows."""
    return _exceeded(variant, budget, unit) is None


def _exceeded(variant: MeasuredVariant, budget: Budget | None, unit: str) -> str | None:
    """Return what a variant takes more of than the budget allows, in words; None if it is within the budget."""
    return None if budget is None else ", ".join(text for share, text in _shares(variant, budget, unit) if share > 1) or None


def _shares(variant: MeasuredVariant, budget: Budget, unit: str) -> Iterator[tuple[float, str]]:
    """Yield for each limit of a budget how many times it a variant takes, and what it takes, in words."""
    most = budget.latency_ms if unit == "ms" else None if budget.instructions is None else budget.instructions / 1e6
    if most is not None:
        yield variant.cost / most, f"a step takes {_number(variant.cost, most)} {COST_UNITS[unit]}"
    memory, size = variant.peak_memory_bytes, variant.size_bytes
    if budget.memory_bytes is not None and memory is None:
        yield math.inf, "its peak memory was not measured"
    elif budget.memory_bytes is not None and memory is not None:
        yield memory / budget.memory_bytes, f"it takes {_number(memory / 1e6, budget.memory_bytes / 1e6)} MB of memory"
    if budget.size_bytes is not None:
        yield size / budget.size_bytes, f"its file has {_number(size / 1e6, budget.size_bytes / 1e6)} MB"


def _number(value: float, limit: float) -> str:
    """Return a number with four digits, or as many more as tell it from a limit."""
    texts = ((f"{value:.{digits}g}", f"{limit:.{digits}g}") for digits in range(4, 12))
    return next((own for own, other in texts if own != other), f"{value:.4g}")


def _ruled_out(artifact: Artifact, variant: MeasuredVariant, unit: str, budget: Budget | None, most: float | None) -> str | None:
    """Return which limits it exceeds, in words; None if it may be chosen."""
    reasons, fall = [variant.fault, _exceeded(variant, budget, unit)], fall_in_points(artifact)
    if most is not None and artifact.precision != EXACT and fall is None:
        reasons.append("its accuracy could not be compared with float32")
    elif most is not None and fall is not None and fall > most:
        reasons.append(f"its top-1 falls by {fall:.1f} points")
    return ", ".join(filter(None, reasons)) or None


def _doubt(artifact: Artifact, most: float | None) -> str | None:
    """Return why one would choose another artifact if there is one within the limits."""
    fall = fall_in_points(artifact)
    if artifact.precision not in FLOATS and fall is None:
        return "its accuracy is not known"
    return f"its top-1 falls by {fall:.1f} points" if most is None and fall is not None and fall > 0 else None


def _loss(artifact: Artifact) -> tuple[float, int]:
    """Return by how many points the top-1 of an artifact falls, and how low its precision is."""
    fall = 0.0 if artifact.precision == EXACT else fall_in_points(artifact)
    return float("inf") if fall is None else max(0.0, fall), PRECISIONS.index(artifact.precision)


def _verdict(artifact: Artifact, best: Artifact, doubt: str | None, budget: Budget | None, left: int, tried: int) -> str:
    """Return why an artifact that is within the limits was chosen, or why not."""
    if artifact is best:
        if tried == 1:
            reason = "the only one tried"
        else:
            reason = "the only one left" if left == 1 else "the cheapest" if budget is None else "the most accurate that fits"
        return f"chosen: {reason}{f', although {doubt}' if doubt else ''}"
    if budget is None:
        return doubt or f"not cheaper than {best.precision}"
    return f"fits, but {best.precision} is more accurate"
