"""Metrics of predictions: top-k accuracy, the confusion matrix, and accuracy by the share of a video that was seen."""

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from clipstep.training.predict import VideoPrediction

SEEN = tuple(tenth / 10 for tenth in range(1, 11))
"""The shares of a video after which accuracy is measured."""


def top_k_share(predictions: Sequence[VideoPrediction], k: int) -> float:
    """Return the share of videos whose true class is among the ``k`` most probable at the end of the video."""
    return sum(_is_right(p.probabilities[-1], p.label, k) for p in predictions) / len(predictions)


def top_k_when_seen(predictions: Sequence[VideoPrediction], k: int, seen: float) -> tuple[float | None, int]:
    """Return top-k accuracy after the share ``seen`` of each video's subclips, and the number of videos that it is measured on.

    A video without a prediction by then, because the network has a delay, is left out; the accuracy is None if all are.
    """
    right = [_is_right(after, p.label, k) for p in predictions if (after := _after(p, seen)) is not None]
    return (sum(right) / len(right) if right else None), len(right)


def _is_right(probabilities: Tensor, label: int, k: int) -> bool:
    return label in ranking(probabilities)[:k]


def ranking(probabilities: Tensor) -> list[int]:
    """Return the classes sorted by ``probabilities`` ``(classes,)``, the most probable first, and of equal ones the lower index."""
    ranked: list[int] = probabilities.argsort(descending=True, stable=True).tolist()
    return ranked


def confusion_matrix(predictions: Sequence[VideoPrediction], classes: int) -> npt.NDArray[np.int64]:
    """Return ``(classes, classes)``: how many videos of the row's class were predicted as the column's class."""
    guessed = torch.tensor([ranking(p.probabilities[-1])[0] for p in predictions])
    right = torch.tensor([p.label for p in predictions])
    matrix: npt.NDArray[np.int64] = multiclass_confusion_matrix(guessed, right, classes).numpy()
    return matrix


def largest_share(labels: Iterable[int]) -> float:
    """Return the share of the largest class: the accuracy of always predicting it."""
    every = list(labels)
    return max(every.count(label) for label in set(every)) / len(every)


def _after(prediction: VideoPrediction, seen: float) -> Tensor | None:
    row = ceil(seen * (prediction.silent + len(prediction.probabilities))) - 1 - prediction.silent
    return prediction.probabilities[row] if row >= 0 else None
