"""What a plot of predictions shows, in one sentence: its title."""

from collections.abc import Sequence

import numpy as np

from clipstep.runtime.engine import Array


def finding(times: Sequence[float], probabilities: Array, labels: Sequence[str]) -> str:
    """Return which class the predictions say.

    It is `Fight from 0.5 s on, 0.96 at its highest` if at least half of the predictions, up to the last one, have the same likeliest class. Otherwise
    it is the class that is the likeliest most often: `Fight in 5 of 12 predictions, 0.96 at its highest`.

    Args:
        times: when each prediction is known, in seconds.
        probabilities: `(predictions, classes)`.
        labels: the names of the classes.
    """
    likeliest = probabilities.argmax(axis=1)
    last = int(likeliest[-1])
    others = np.flatnonzero(likeliest != last)
    first = int(others[-1]) + 1 if len(others) else 0
    if 2 * (len(times) - first) >= len(times):
        return f"{labels[last]} from {times[first]:.1f} s on, {probabilities[first:, last].max():.2f} at its highest"
    usual = int(np.bincount(likeliest).argmax())
    said = likeliest == usual
    return f"{labels[usual]} in {said.sum()} of {len(times)} predictions, {probabilities[said, usual].max():.2f} at its highest"
