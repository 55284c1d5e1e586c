"""Finds the palette of a weight: the few numbers that stand for all of its own, by k-means in one dimension."""

from typing import Any

import numpy as np

Array = Any
"""An array of numpy, of floats."""
ROUNDS = 1000
"""The most rounds of k-means. Each makes the squared error smaller, and one that does not is the last; large weights take some hundreds."""


def palette_of(weight: Array, size: int) -> tuple[Array, Array]:
    """Return a palette of `size` numbers in ascending order, in the type of the weight, and for each number of the weight the index of its entry.

    Each number has the nearest entry, and each entry is the mean of its numbers, rounded to its type. Entries that no number needs repeat the
    last one. A weight of no more than `size` different numbers is kept as it is.
    """
    numbers, inverse, counts = np.unique(weight, return_inverse=True, return_counts=True)
    entries = numbers if len(numbers) <= size else _clustered(numbers, counts, size)
    indices = nearest(numbers, entries)[inverse].reshape(weight.shape)
    return np.concatenate([entries, np.repeat(entries[-1:], size - len(entries))]), indices


def nearest(numbers: Array, entries: Array) -> Array:
    """Return the index of the nearest of ascending entries for each number, the lower one of two."""
    wide = entries.astype(np.float64)
    return np.searchsorted((wide[1:] + wide[:-1]) / 2, numbers.astype(np.float64), side="left")


def _clustered(numbers: Array, counts: Array, size: int) -> Array:
    """Return the centres of clusters of ascending numbers, of which each is there `counts` times."""
    entries = _first_entries(numbers, size)
    found = nearest(numbers, entries)
    for _ in range(ROUNDS):
        weights = np.bincount(found, counts, len(entries))
        sums = np.bincount(found, counts * numbers.astype(np.float64), len(entries))
        entries = np.unique((sums[weights > 0] / weights[weights > 0]).astype(numbers.dtype))
        before, found = found, nearest(numbers, entries)
        if np.array_equal(before, found):
            break
    return entries


def _first_entries(numbers: Array, size: int) -> Array:
    """Return entries whose density is the cube root of that of the numbers, which is the best one for many entries (Panter and Dite, 1951)."""
    way = np.concatenate([[0.0], np.cumsum(np.diff(numbers.astype(np.float64)) ** (2 / 3))])
    places = (np.arange(size) + 0.5) / size * way[-1]
    return np.unique(np.interp(places, way, numbers.astype(np.float64)).astype(numbers.dtype))
