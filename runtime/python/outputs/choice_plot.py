"""What `clipstep export --tune` tried for each target and platform, and its Pareto front, as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipstep.runtime.bundle.choice import Choice
from clipstep.runtime.bundle.pareto_front import Point, pareto_front, points_of
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.install_hints import install_extra
from clipstep.runtime.wording import either

SUFFIXES = (".png", ".svg")
STYLES = {
    "float32": ("#0072B2", "o"),
    "float16": ("#D55E00", "s"),
    "dynamic8": ("#56B4E9", "D"),
    "int8": ("#009E73", "^"),
    "w8a8": ("#E69F00", "P"),
    **dict.fromkeys(("palette8", "palette6", "palette4"), ("#CC79A7", "v")),
}
"""The colour and the marker of each precision, which are told apart by colour-blind people and in print, too."""
GREY = "#555555"
WIDTH, HEIGHT = 4.6, 4.3
"""Inches: of a panel, and of a row with its legend."""
SMALL, LARGE = 5, 8
"""Points: of the marker of a variant, and of the one that stands for its precision."""
DPI = 110


class _Panel(NamedTuple):
    """A quantity that is drawn over the cost of a step."""

    label: str
    value: Callable[[Point], float]
    limit: float | None = None
    """What the budget allows."""


def check_plot_name(path: Path) -> None:
    """Check that a picture of choices may have that name.

    Raises:
        ClipstepError: its suffix is not that of a format.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ClipstepError(f"{path}: unknown format of a picture", got=suffix or "no suffix", expected=f"a name that ends in {either(SUFFIXES)}")


def plot_choices(choices: Sequence[Choice], path: Path | str) -> None:
    """Draw what an export with tuning tried.

    Each target and platform has a row, in which size, peak memory and accuracy are drawn over the cost of a step. Variants on the Pareto front are
    filled, the others are hollow. The variant that stands for its precision is larger, and a circle is around the one that was chosen.

    Args:
        choices: those of a `Manifest`, at least one.
        path: the file to write, `.png` or `.svg`; an older one is replaced.

    Raises:
        ClipstepError: there is no choice, the suffix is another one, or clipstep[pictures] is not installed.

    Example:
        ```python
        plot_choices(result.manifest.choices, "tried.png")
        ```
    """
    path = Path(path)
    check_plot_name(path)
    if not choices:
        raise ClipstepError("there are no choices to draw", got="a bundle that was exported without --tune")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ClipstepError(f"a picture needs {error.name}, which is not installed", fix=install_extra("pictures")) from error
    panels = [_panels(choice) for choice in choices]
    columns = max(map(len, panels))
    figure = Figure((WIDTH * columns, HEIGHT * len(choices)), layout="constrained")
    rows = figure.subfigures(len(choices), 1, squeeze=False)[:, 0]
    for row, choice, drawn in zip(rows, choices, panels, strict=True):
        within = f" within {choice.budget}" if choice.budget is not None else ""
        row.suptitle(f"{choice.target} on {choice.platform}: {choice.precision} ({choice.chosen.variant}) was chosen{within}", x=0.02, ha="left")
        axes = row.subplots(1, columns, squeeze=False)[0]
        for axis, panel in zip(axes, drawn, strict=False):
            _draw(axis, choice, panel)
        for axis in axes[len(drawn) :]:
            axis.set_visible(False)
        row.legend(handles=_legend(choice), loc="outside lower center", ncols=2 * columns, frameon=False)
    with atomic_file(path) as new, rc_context({"svg.fonttype": "none"}):  # Text in an SVG stays text, which can be searched and copied.
        figure.savefig(new, dpi=DPI)


def _panels(choice: Choice) -> list[_Panel]:
    budget = choice.budget
    panels = [_Panel("file (MB)", lambda point: point[1].size_bytes / 1e6, None if budget is None else _mega(budget.size_bytes))]
    if all(variant.peak_memory_bytes is not None for _, variant in points_of(choice.tried)):
        limit = None if budget is None else _mega(budget.memory_bytes)
        panels.append(_Panel(f"peak memory (MB, on {choice.measured_on})", lambda point: (point[1].peak_memory_bytes or 0) / 1e6, limit))
    if any(one.against_float32 is not None for one in choice.tried):
        limit = None if choice.max_accuracy_drop is None else -choice.max_accuracy_drop
        panels.append(_Panel("change of top-1 (points, 95% interval)", _change, limit))
    return panels


def _mega(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _change(point: Point) -> float:
    against = point[0].against_float32
    return 0.0 if against is None else 100 * against.top1_change


def _draw(axis: Any, choice: Choice, panel: _Panel) -> None:
    """Draw the variants of all precisions; of accuracy, which was measured of one variant of a precision, that one."""
    accuracy, front = panel.value is _change, pareto_front(choice.tried)
    for precision, variant in points_of(choice.tried):
        own, point = variant.variant == precision.variant, (precision, variant)
        against = precision.against_float32
        if accuracy and (not own or (against is None and precision.precision != "float32")):
            continue
        (colour, marker), y = STYLES[precision.precision], panel.value(point)
        if accuracy and against is not None:
            low, high = (100 * end for end in against.top1_change_interval)
            axis.plot((variant.cost, variant.cost), (low, high), "-", color=colour, linewidth=1)
        size = LARGE if own else SMALL
        axis.plot(variant.cost, y, marker, color=colour, markerfacecolor=colour if point in front else "white", markersize=size)
        if own and precision is choice.chosen:
            axis.plot(variant.cost, y, "o", color="#333333", markerfacecolor="none", markersize=2 * LARGE)
    if accuracy:
        axis.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    _draw_limits(axis, choice, panel)
    axis.set(xlabel="a step (ms)" if choice.unit == "ms" else f"a step ({choice.unit})", ylabel=panel.label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(0.18, 0.15)
    axis.set_xlim(0, max(axis.get_xlim()[1], 1.1 * axis.dataLim.xmax))  # Room for the markers, if all are at one place.
    if not accuracy:
        axis.set_ylim(0, max(axis.get_ylim()[1], 1.1 * axis.dataLim.ymax))


def _draw_limits(axis: Any, choice: Choice, panel: _Panel) -> None:
    budget = choice.budget
    most = None if budget is None else budget.latency_ms if choice.unit == "ms" else _mega(budget.instructions)
    if most is not None:
        axis.axvline(most, linestyle=":", color=GREY)
    if panel.limit is not None:
        axis.axhline(panel.limit, linestyle=":", color=GREY)


def _legend(choice: Choice) -> list[Any]:
    from matplotlib.lines import Line2D

    lines = []
    for one in choice.tried:
        colour, marker = STYLES[one.precision]
        lines.append(Line2D([], [], linestyle="", marker=marker, markersize=LARGE, color=colour, label=f"{one.precision} (large: {one.variant})"))
    if choice.budget is not None or choice.max_accuracy_drop is not None:
        lines.append(Line2D([], [], linestyle=":", color=GREY, label="limits"))
    grey: dict[str, Any] = {"linestyle": "", "color": GREY}
    return [
        *lines,
        Line2D([], [], marker="D", markersize=SMALL, label="on the Pareto front", **grey),
        Line2D([], [], marker="D", markersize=SMALL, markerfacecolor="white", label="not on it", **grey),
        Line2D([], [], marker="o", markerfacecolor="none", markersize=2 * LARGE - 4, label="chosen", **grey),
    ]
