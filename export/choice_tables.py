"""What `clipstep export --tune` prints of what it tried: a table with the Pareto front, what was chosen, and why."""

from collections.abc import Iterator

from rich.table import Table

from clipstep.export.choosing import within
from clipstep.export.evaluating import EXACT
from clipstep.runtime.bundle.choice import Budget, Choice, CostUnit, MeasuredVariant, TriedPrecision
from clipstep.runtime.bundle.pareto_front import pareto_front, points_of
from clipstep.runtime.command_line.accuracy_text import change_interval_text, points
from clipstep.runtime.command_line.terminal import new_table

COST_HEADINGS: dict[CostUnit, str] = {"ms": "ms", "M ARM64 instructions": "M\ninstr."}


def choice_lines(choice: Choice) -> Iterator[str | Table]:
    """Yield the table of what was tried for a target and platform, and lines that say what was chosen, why, and where it was measured."""
    for one in choice.tried:
        yield from (f"{one.precision} ({other.variant}): {other.fault}" for other in one.variants if other.fault and other != one.own)
    if len(choice.tried) == 1 and choice.budget is None:
        return  # The line of the artifact says which variant was chosen.
    limits = f", within {choice.budget}" if choice.budget is not None else ""
    yield f"tried for {choice.target} on {choice.platform}{limits}"
    yield tried_table(choice.unit, choice.tried, choice.budget, choice.chosen)
    yield from (f"{one.precision} ({one.variant}): {one.verdict}" for one in choice.tried)
    if left_out := [one.precision for one in choice.tried if one.precision not in (EXACT, choice.precision)]:
        yield f"not in the bundle: {', '.join(left_out)}"
    elsewhere = ["peak memory"] * (choice.measured_on != choice.platform and any(one.own.peak_memory_bytes is not None for one in choice.tried))
    elsewhere += ["accuracy"] * any(one.accuracy is not None and one.accuracy.processor != choice.platform for one in choice.tried)
    if elsewhere:
        yield f"a note: measured on {choice.measured_on}, not on {choice.platform}: {', '.join(elsewhere)}"


def tried_table(unit: CostUnit, tried: tuple[TriedPrecision, ...], budget: Budget | None = None, chosen: TriedPrecision | None = None) -> Table:
    """Return a table with a row for each variant, which marks those on the Pareto front, and the one that was chosen; those that are off the golden
    steps; and those that are over the budget."""
    evaluated = any(one.accuracy is not None for one in tried)
    changes = ("top-1\npoints", "95% interval") if evaluated else ()
    errors = ("error\n%",) if any(variant.max_relative_error is not None for _, variant in points_of(tried)) else ()
    table = new_table("precision", "variant", COST_HEADINGS[unit], "file\nMB", "peak\n+MB", *errors, *changes, "Pareto\nfront", "", texts=2)
    front = pareto_front(tried)
    for precision, variant in points_of(tried):
        memory = variant.peak_memory_bytes
        table.add_row(
            precision.precision,
            variant.variant,
            f"{variant.cost:.4g}",
            f"{variant.size_bytes / 1e6:.2f}",
            "-" if memory is None else f"{memory / 1e6:.1f}",
            *(["-" if variant.max_relative_error is None else f"{100 * variant.max_relative_error:.2g}"] if errors else []),
            *(_change(precision, variant) if evaluated else ()),
            "yes" if (precision, variant) in front else "-",
            "chosen" if precision is chosen and variant.variant == precision.variant else _rejection(variant, budget, unit),
        )
    return table


def _rejection(variant: MeasuredVariant, budget: Budget | None, unit: CostUnit) -> str:
    return "off" if variant.fault else "" if within(variant, budget, unit) else "over"


def _change(tried: TriedPrecision, variant: MeasuredVariant) -> tuple[str, str]:
    """Return the change of top-1 and its interval; a dash if it was not measured, as of all variants of int8 but one, whose errors differ."""
    against = tried.against_float32
    if against is None or (variant.max_relative_error is not None and variant != tried.own) or variant.fault:
        return "" if tried.precision == EXACT else "-", ""
    return points(against.top1_change), change_interval_text(against)
