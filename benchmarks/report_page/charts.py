"""Charts as SVG. Positions across are shares of the width, and texts keep their size, so that a chart fits every screen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipstep.benchmarks.report_page.axis import Axis, fitting, linear, logarithmic
from clipstep.benchmarks.report_page.markup import Html, element, escaped

LANE, PLOT, BELOW = 46, 240, 38
"""Heights in pixels: of a lane with its label, of a scatter plot, and of what is below a plot: the labels of its axis, and its name."""
GAP = 15
"""Pixels between the labels of a scatter plot."""
SHOWN_STEPS = 200
"""How many steps of a configuration are drawn; of more, as many that are evenly spaced in the order of their times."""
LEAST_PART = 0.03
"""The least share of a stacked bar."""
LONGEST = 24
"""Characters of a name in a chart."""


@dataclass(frozen=True)
class Lane:
    """A row of a chart: its label, the values in it, and whether an artifact of the bundle is in it rather than a reference."""

    label: str
    values: tuple[float, ...]
    own: bool = True
    bound: float | None = None
    """A limit to mark; None if there is none."""


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot."""

    label: str
    x: float
    y: float
    own: bool = True


def box_plot(title: str, lanes: Sequence[Lane], unit: str) -> Html:
    """Return the distribution of each lane's values: a dot for each, a box around the middle half, a line at the median, whiskers from p10 to p99.

    Values beyond the axis, which ends after the largest p99, are drawn at its end.
    """
    axis = fitting([float(np.percentile(lane.values, percent)) for lane in lanes for percent in (10, 99)])
    rows = [_box(lane, axis, index * LANE) for index, lane in enumerate(lanes)]
    return _svg(title, len(lanes) * LANE + BELOW, _axis_across(axis, len(lanes) * LANE, unit), *rows)


def error_plot(title: str, lanes: Sequence[Lane], unit: str) -> Html:
    """Return a dot for the value of each lane beside its bound, on a logarithmic axis. A value of 0 is at the left end."""
    axis = logarithmic([value for lane in lanes for value in (*lane.values, lane.bound) if value])
    rows = []
    for index, lane in enumerate(lanes):
        top, middle = index * LANE, index * LANE + 32
        (at, *_), bound = map(axis.at, lane.values), axis.at(lane.bound or 0)
        rows += [
            _label(lane.label, top + 16),
            _line(at, middle, bound, middle, "whisker"),
            _line(bound, middle - 8, bound, middle + 8, "bound"),
            element("circle", cx=_share(at), cy=middle, r=5, class_="own"),
        ]
    return _svg(title, len(lanes) * LANE + BELOW, _axis_across(axis, len(lanes) * LANE, unit), *rows)


def scatter(title: str, points: Sequence[Point], units: tuple[str, str], *, bounds: Sequence[tuple[str, float]] = ()) -> Html:
    """Return a scatter plot with a label at each point.

    Args:
        title: what it shows, for those who do not see it.
        points: the points; `x`, which is above 0, is the place across.
        units: the names of both axes, with their units.
        bounds: limits of `y`, which are drawn as lines; with them the axis upwards is logarithmic.
    """
    across = fitting([point.x for point in points])
    high = [point.y for point in points]
    up = logarithmic([y for y in (*high, *(value for _, value in bounds)) if y > 0]) if bounds else linear(high)
    height = max(PLOT, GAP * (len(points) + 2))
    places = [(point, across.at(point.x), height * (1 - up.at(point.y))) for point in points]
    grid = [part for tick in up.ticks() for part in _tick_up(tick, height * (1 - up.at(tick)))]
    limits = [part for name, value in bounds for part in _bound_up(name, height * (1 - up.at(value)))]
    dots = [element("circle", cx=_share(x), cy=f"{y:.1f}", r=5, class_=_kind(point.own)) for point, x, y in places]
    name = element("text", f"{units[1]}{up.scale}", x=0, y=-12, dx=-48, class_="muted")
    return _svg(title, height + BELOW, name, *grid, *limits, _axis_across(across, height, units[0]), *dots, *_labels(places, height))


def bar(share: float) -> Html:
    """Return a bar that fills a share of its cell. The number stands beside it."""
    filled = element("rect", x=0, y=1, width=_share(max(0.0, share)), height=10, class_="own")
    return element("svg", filled, width="100%", height=12, aria_hidden="true", class_="bar")


def stacked_bar(title: str, parts: Sequence[tuple[float, str]]) -> Html:
    """Return a bar of consecutive parts, each a number and the class that colours it. Small parts are drawn wide enough to be seen."""
    least = sum(count for count, _ in parts) * LEAST_PART
    parts = [(max(count, least), kind) for count, kind in parts]
    total, at, drawn = sum(count for count, _ in parts), 0.0, []
    for count, kind in parts:
        drawn.append(element("rect", x=_share(at), y=1, width=_share(count / total), height=12, class_=f"part {kind}"))
        at += count / total
    return _svg(title, 14, *drawn, class_="bar")


def short(name: str) -> str:
    """Return a name that fits in a chart."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _box(lane: Lane, axis: Axis, top: int) -> Html:
    middle = top + 32
    ranked = sorted(lane.values)
    if len(ranked) > SHOWN_STEPS:
        ranked = [ranked[round(index * (len(ranked) - 1) / (SHOWN_STEPS - 1))] for index in range(SHOWN_STEPS)]
    low, first, median, third, high = (axis.at(float(np.percentile(lane.values, percent))) for percent in (10, 25, 50, 75, 99))
    dots = [element("circle", cx=_share(axis.at(value)), cy=middle - 6 + index * 5 % 13, r=1.8) for index, value in enumerate(ranked)]
    return element(
        "g",
        _label(lane.label, top + 16),
        element("g", *dots, class_=f"steps {_kind(lane.own)}"),
        _line(low, middle, high, middle, "whisker"),
        _line(high, middle - 4, high, middle + 4, "whisker"),
        element("rect", x=_share(first), y=middle - 8, width=_share(third - first), height=16, class_=f"box {_kind(lane.own)}"),
        _line(median, middle - 10, median, middle + 10, "median"),
    )


def _labels(places: Sequence[tuple[Point, float, float]], height: int) -> list[Html]:
    """Return the labels of points at different heights, each with a line to its point if it had to move."""
    ranked = sorted(places, key=lambda place: place[2])
    rows: list[float] = []
    for _, _, y in ranked:
        rows.append(max(y, rows[-1] + GAP) if rows else max(y, 6.0))
    for index in reversed(range(len(rows))):
        below = rows[index + 1] - GAP if index + 1 < len(rows) else height - 6.0
        rows[index] = min(rows[index], below)
    parts = []
    for (point, x, y), row in zip(ranked, rows, strict=True):
        if abs(row - y) > 6:
            parts.append(_line(x, y, x, row, "leader"))
        side = {"dx": -9, "text_anchor": "end"} if x > 0.45 else {"dx": 9}
        parts.append(element("text", point.label, x=_share(x), y=f"{row + 4:.1f}", class_="halo", **side))
    return parts


def _axis_across(axis: Axis, height: int, unit: str) -> Html:
    parts = [_line(axis.at(axis.low), height, 1, height, "axis")]
    for tick in axis.ticks():
        at = axis.at(tick)
        anchor = "start" if at < 0.03 else "middle"
        parts += [_line(at, 0, at, height, "grid"), element("text", _tick(tick), x=_share(at), y=height + 15, text_anchor=anchor, class_="muted")]
    return element("g", *parts, element("text", f"{unit}{axis.scale}", x="50%", y=height + 32, text_anchor="middle", class_="muted"))


def _tick_up(tick: float, y: float) -> list[Html]:
    return [_line(0, y, 1, y, "grid"), element("text", _tick(tick), x=0, y=f"{y + 4:.1f}", dx=-8, text_anchor="end", class_="muted")]


def _bound_up(name: str, y: float) -> list[Html]:
    return [_line(0, y, 1, y, "bound"), element("text", name, x="100%", y=f"{y + 14:.1f}", text_anchor="end", class_="muted halo")]


def _tick(value: float) -> str:
    return f"{value:,.10g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def _label(text: str, y: int) -> Html:
    return element("text", text, x=0, y=y, class_="halo")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=_share(x1), y1=f"{y1:g}", x2=_share(x2), y2=f"{y2:g}", class_=kind)


def _svg(title: str, height: int, *parts: Html, class_: str | None = None) -> Html:
    return element("svg", element("title", escaped(title)), *parts, role="img", width="100%", height=height, class_=class_)


def _share(value: float) -> str:
    return f"{100 * value:.2f}%"


def _kind(own: bool) -> str:
    return "own" if own else "reference"
