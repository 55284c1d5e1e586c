"""How right predictions are: top-k, per class, the confusion matrix, and accuracy by how much of a video was seen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from clipstep.network.videos import read_views
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.outputs import Output, probabilities_of
from clipstep.runtime.resize import Box, center_box
from clipstep.runtime.video import VideoError
from clipstep.training.data.lists import Clip
from clipstep.training.data.subclips import CORNER_SCALES, corner_square

SEEN = tuple(tenth / 10 for tenth in range(1, 11))


@dataclass(frozen=True)
class Prediction:
    """A video, its right class, and the probabilities after each subclip, ``(S, classes)``, but for the ``silent`` first ones, after
    which a network with a delay says nothing yet."""

    path: Path
    label: int
    probabilities: Tensor
    silent: int = 0

    def __repr__(self) -> str:
        subclips, classes = self.probabilities.shape
        return f"<Prediction of {self.path}, of class {self.label}: {classes} probabilities after each of {subclips} subclips>"


def predict_videos(
    logits: Callable[[Tensor], Tensor],
    clips: Sequence[Clip],
    shape: tuple[int, int, int],
    console: Console,
    *,
    crops: int = 1,
    output: Output = "logits",
) -> tuple[list[Prediction], Mapping[str, str]]:
    """One video at a time, in the list's order: the predictions, and the unusable videos with the reason.

    ``logits`` gives those after each subclip of ``(S, T, size, size, channels)`` uint8, or after all but the first ones;
    ``output`` says whether they are logits, or probabilities already. ``shape`` is ``(T, size, channels)``.
    With 5 ``crops`` the probabilities of the centre and of the four corners are averaged.

    Raises:
        VideoError: not one of the videos can be used.
        ClipstepError: the network's outputs for a video are not finite.
    """
    found, unusable = [], {}
    for clip in track(clips, "predicting", console=console, disable=not console.is_terminal, transient=True):
        try:
            views = read_views(clip.path, *shape, _boxes(crops))
            probabilities = torch.stack([torch.from_numpy(probabilities_of(logits(view).cpu().numpy(), output)) for view in views]).mean(dim=0)
        except VideoError as error:
            unusable[str(clip.path)] = str(error)
            continue
        if not bool(probabilities.isfinite().all()):
            raise ClipstepError(
                f"{clip.path}: the network's outputs are not finite", got="NaN among the probabilities", fix="train it again, or verify it"
            )
        found.append(Prediction(clip.path, clip.label, probabilities, len(views[0]) - len(probabilities)))
    if not found:
        raise VideoError(f"no usable video: {next(iter(unusable.values()), 'the list is empty')}")
    return found, unusable


def fused(first: Sequence[Prediction], second: Sequence[Prediction]) -> list[Prediction]:
    """Late fusion: the mean of both probabilities of each video, after each subclip after which both say something. Both predict the
    same videos."""
    return [_fused(one, other) for one, other in zip(first, second, strict=True)]


def _fused(one: Prediction, other: Prediction) -> Prediction:
    rows = min(len(one.probabilities), len(other.probabilities))
    return replace(one, probabilities=(one.probabilities[-rows:] + other.probabilities[-rows:]) / 2, silent=max(one.silent, other.silent))


def top_k_share(predictions: Sequence[Prediction], k: int) -> float:
    """The share of videos whose right class is among the ``k`` most probable at their end."""
    return sum(_is_right(p.probabilities[-1], p.label, k) for p in predictions) / len(predictions)


def top_k_when_seen(predictions: Sequence[Prediction], k: int, seen: float) -> tuple[float | None, int]:
    """The same when the share ``seen`` of a video's subclips was seen, of the videos of which something is said by then, and how
    many those are; None if there is none."""
    right = [_is_right(after, p.label, k) for p in predictions if (after := _after(p, seen)) is not None]
    return (sum(right) / len(right) if right else None), len(right)


def _is_right(probabilities: Tensor, label: int, k: int) -> bool:
    return label in ranking(probabilities)[:k]


def ranking(probabilities: Tensor) -> list[int]:
    """The classes by their probabilities ``(classes,)``, the most probable first; of equal ones the first class, whatever is right."""
    ranked: list[int] = probabilities.argsort(descending=True, stable=True).tolist()
    return ranked


def confusion_matrix(predictions: Sequence[Prediction], classes: int) -> npt.NDArray[np.int64]:
    """``(classes, classes)``: how many videos of the class of the row were taken for that of the column."""
    guessed = torch.tensor([ranking(p.probabilities[-1])[0] for p in predictions])
    right = torch.tensor([p.label for p in predictions])
    matrix: npt.NDArray[np.int64] = multiclass_confusion_matrix(guessed, right, classes).numpy()
    return matrix


def largest_share(labels: Iterable[int]) -> float:
    """The share of the largest class: what always naming it would reach."""
    every = list(labels)
    return max(every.count(label) for label in set(every)) / len(every)


def _after(prediction: Prediction, seen: float) -> Tensor | None:
    row = ceil(seen * (prediction.silent + len(prediction.probabilities))) - 1 - prediction.silent
    return prediction.probabilities[row] if row >= 0 else None


def _boxes(crops: int) -> list[Callable[[int, int], Box]]:
    return [center_box, *(partial(corner_square, corner=corner, scale=CORNER_SCALES[1]) for corner in range(crops - 1))]
