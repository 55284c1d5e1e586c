"""How evenly the classes are represented in a training list, and weights that make up for it."""

from collections import Counter
from collections.abc import Sequence

from clipstep.runtime.wording import counted
from clipstep.training.data.lists import Clip


def describe_balance(clips: Sequence[Clip], labels: Sequence[str]) -> str:
    """Return a sentence with the smallest and the largest class of a training list."""
    counts = Counter(clip.label for clip in clips)
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[small] == counts[large]:
        return f"{len(counts)} classes, each with {counted(counts[small], 'training video')}"
    return (
        f"{len(counts)} classes: the smallest is {labels[small]} with {counted(counts[small], 'training video')}, "
        f"the largest {labels[large]} with {counts[large]}"
    )


def balanced_weights(clips: Sequence[Clip], classes: int) -> list[float]:
    """Return ``n / (k * count)`` for each class: n videos in all, k classes, ``count`` videos of the class. Their mean over the videos is 1.

    A class without videos has the weight 0, and is no part of k. Source: King and Zeng, "Logistic Regression in Rare Events Data" (2001), as in
    scikit-learn's ``class_weight="balanced"``.
    """
    counts = Counter(clip.label for clip in clips)
    return [len(clips) / (len(counts) * counts[label]) if counts[label] else 0.0 for label in range(classes)]
