"""What the writers of graphs share."""

from collections.abc import Sequence

Pair = int | Sequence[int]
"""A setting of a 2D operation: one number for rows and columns, or one each."""


class NotTaken(Exception):
    """An operation, or a setting of one, that a writer does not know."""


def pair(values: Pair) -> tuple[int, int]:
    return (values, values) if isinstance(values, int) else (values[0], values[-1])
