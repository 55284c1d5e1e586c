"""Plots of evaluations and explanations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure

from clipstep.runtime.outputs.lines import spread
from clipstep.runtime.wording import counted

Frames = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int_]

LABEL_GAP = 0.11
"""The distance of two names beside the lines of an explanation, as a share of the height of its plot."""
LABELLED_CLASSES = 30
"""Up to this many classes are named on the axes; up to half as many, the counts are written into the cells."""


def plot_confusion(path: Path, matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> None:
    """Plot the confusion matrix as shares of each row: which classes the videos of a class were predicted as."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.35 * len(labels) + 2.5, 4, 16))
    figure = Figure((side, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class")
    figure.suptitle(confusion_finding(counts, labels), parse_math=False)
    if len(labels) <= LABELLED_CLASSES:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= LABELLED_CLASSES // 2:
        for (row, column), share in np.ndenumerate(shares):
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="white" if share > 0.7 else "black")
    figure.colorbar(image, shrink=0.8, label="share of the row")
    figure.savefig(path, dpi=120)


def confusion_finding(counts: Counts, labels: Sequence[str]) -> str:
    """Return how many videos are right and what is confused most, such as `17 of 20 right; NoFight is taken for Fight 2 times`."""
    right = f"{counts.trace()} of {counts.sum()} right"
    wrong = counts - np.diag(counts.diagonal())
    if not wrong.any():
        return right
    true, said = divmod(int(wrong.argmax()), len(labels))
    return f"{right};\n{labels[true]} is taken for {labels[said]} {counted(int(wrong.max()), 'time')}"


def plot_seen(path: Path, seen: Mapping[str, float | None], chance: float) -> None:
    """Plot top-1 accuracy by the share of each video that was seen; ``seen`` maps shares to accuracies, None where no video has a prediction yet."""
    figure = Figure((5, 3.5), layout="constrained")
    axes = figure.subplots()
    said = {100 * float(share): 100 * value for share, value in seen.items() if value is not None}
    axes.plot(list(said), list(said.values()), marker="o", clip_on=False)
    axes.axhline(100 * chance, color="grey", linestyle="--")
    side = ("bottom", 3) if chance < 0.9 else ("top", -3)
    axes.annotate("always the largest class", (0, 100 * chance), xytext=(2, side[1]), textcoords="offset points", va=side[0], color="#555555")
    axes.set(xlabel="share of the video seen (%)", ylabel="top-1 accuracy (%)", xlim=(0, 100), ylim=(0, 100))
    if said:
        first, last = min(said), max(said)
        axes.set_title(f"{said[last]:.0f}% right with {last:.0f}% of the video, {said[first]:.0f}% with {first:.0f}%")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def overlay(frames: Frames, heat: Heat) -> Frames:
    """Return ``frames`` ``(F, H, W, 3)`` with ``heat`` ``(F, H, W)`` of 0..1 blended over them: the hotter a pixel, the less of the frame shows."""
    colours = colormaps["inferno"](heat)[..., :3] * 255
    share = 0.7 * heat[..., None]
    mixed: Frames = (frames * (1 - share) + colours * share).astype(np.uint8)
    return mixed


def plot_explanation(
    path: Path, frames: Frames, heat: Heat, probabilities: Heat, labels: Sequence[str], label: str, rate: float, columns: int = 8
) -> None:
    """Plot frames spread over the video, the same frames with their heat maps, and the probabilities of the most probable classes over time."""
    shown = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
    figure = Figure((1.5 * len(shown), 6), layout="constrained")
    top, bottom = list(figure.subfigures(2, 1, squeeze=False, height_ratios=(3, 2.6))[:, 0])
    for axes, frame, hot, index in zip(top.subplots(2, len(shown), squeeze=False).T, frames[shown], overlay(frames, heat)[shown], shown, strict=True):
        for row, picture in enumerate((frame, hot)):
            axes[row].imshow(picture)
            axes[row].set_axis_off()
        axes[0].set_title(f"{index / rate:.2f} s", fontsize=9)
    axes = bottom.subplots()
    steps = np.arange(1, len(probabilities) + 1) * (len(frames) / len(probabilities)) / rate
    likeliest = np.argsort(-probabilities[-1])[:5]
    shown_classes = sorted({*likeliest.tolist(), labels.index(label)}, key=lambda i: -probabilities[-1, i])
    ends = [float(probabilities[-1, index]) for index in shown_classes]
    for index, value, place in zip(shown_classes, ends, spread(ends, LABEL_GAP, 0, 1), strict=True):
        (line,) = axes.plot(steps, probabilities[:, index], marker="o", linewidth=3 if labels[index] == label else 1, clip_on=False)
        _name_line(axes, f"{labels[index]} {value:.2f}", (steps[-1], value), place, line.get_color())
    axes.set(xlabel="seconds of video", ylabel="probability", xlim=(0, steps[-1] * 1.02), ylim=(0, 1))
    axes.set_title(f"The heat map shows the evidence for {label}", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _name_line(axes: Any, name: str, end: tuple[float, float], place: float, colour: str) -> None:
    """Write a line's name beside its end, at a height of `place`, and join them."""
    axes.annotate(
        name,
        end,
        xytext=(1.03, place),
        textcoords=axes.get_yaxis_transform(),
        va="center",
        color=colour,
        parse_math=False,
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 3},
    )


def explained_frames(frames: Frames, heat: Heat, probabilities: Heat, side: int = 224) -> list[Frames]:
    """Return each frame with its heat map blended over it, ``side`` pixels high and wide, and a bar below it.

    The length of the bar is the probability of the explained class after the frame's subclip.
    """
    shown, bar = [], 16
    every = len(frames) // len(probabilities)
    for index, frame in enumerate(overlay(frames, heat)):
        pixels = np.arange(side) * len(frame) // side
        strip = np.full((bar, side, 3), 40, np.uint8)
        strip[:, : round(side * float(probabilities[index // every]))] = (240, 160, 30)
        shown.append(np.concatenate([frame[pixels][:, pixels], strip]))
    return shown
