"""Which lines a plot of predictions has, and where their labels stand."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clipstep.runtime.engine import Array

MOST_LINES = 8
"""How many classes have a line of their own."""


class Line(NamedTuple):
    """One line of a plot."""

    label: str
    values: Array
    """`(predictions,)`."""
    is_class: bool = True
    """Whether it is one class, not several together."""


def lines_of(probabilities: Array, labels: Sequence[str], *, exclusive: bool) -> list[Line]:
    """Return a line for each of the likeliest classes, the likeliest first, and one for all others.

    Args:
        probabilities: `(predictions, classes)`. The likeliest classes are those with the highest probability at any time.
        labels: the names of the classes.
        exclusive: whether the classes exclude each other. The others are then added up; otherwise their line is that of the highest one.
    """
    ranked = np.argsort(-probabilities.max(axis=0), kind="stable")
    own = len(labels) if len(labels) <= MOST_LINES + 1 else MOST_LINES
    lines = [Line(labels[index], probabilities[:, index]) for index in ranked[:own]]
    others = probabilities[:, ranked[own:]]
    if others.shape[1]:
        together = others.sum(axis=1) if exclusive else others.max(axis=1)
        how = "together" if exclusive else "the highest of them"
        lines.append(Line(f"{others.shape[1]} others, {how}", together, False))
    return lines


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places apart as little as needed so that they are at least `gap` apart, and within `low` and `high` if there is room.

    Places that are too close form a group, which is centred on their mean; groups that touch are merged.
    """
    order = np.argsort(places, kind="stable")
    groups: list[tuple[float, int]] = []  # The centre of each group, and how many places it has.
    for place in (places[index] for index in order):
        centre, count = float(place), 1
        centre = min(max(centre, low), high)
        while groups and centre - (count - 1) * gap / 2 - gap < groups[-1][0] + (groups[-1][1] - 1) * gap / 2:
            before, members = groups.pop()
            centre, count = (before * members + centre * count) / (members + count), members + count
            reach = (count - 1) * gap / 2
            centre = max(min(centre, high - reach), low + reach)
        groups.append((centre, count))
    apart = [centre + (member - (count - 1) / 2) * gap for centre, count in groups for member in range(count)]
    found = [0.0] * len(places)
    for index, place in zip(order, apart, strict=True):
        found[int(index)] = place
    return found
