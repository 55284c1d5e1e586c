"""``clipstep evaluate``: how right a run, or a bundle in its runtime, is on a data set."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from torch import Tensor

from clipstep.runtime.bundle import MANIFEST
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.terminal import new_console
from clipstep.runtime.whole import check_replaceable, write_whole
from clipstep.training.data.lists import read_data_set
from clipstep.training.evaluation import SEEN, Prediction, confusion_matrix, largest_share, predict_videos, top_k_share
from clipstep.training.plots import plot_confusion, plot_seen
from clipstep.training.predict import bundle_logits, video_logits
from clipstep.training.run import load_run


@dataclass(frozen=True)
class Subject:
    """What is evaluated: its classes, a subclip's frames and size, and the logits after each subclip of a video (and whether
    the states are reset at each step)."""

    description: str
    classes: tuple[str, ...]
    frames: int
    size: int
    logits: Callable[..., Tensor]


@click.command("evaluate")
@click.argument("what", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", default=1, show_default=True, help="Which testlist0N.txt.")
@click.option("--engine", type=click.Choice(list(ENGINES)), default="onnxruntime", show_default=True, help="What runs a bundle.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Threads of a bundle's engine.")
@click.option("--crops", type=click.Choice(["1", "5"]), default="1", show_default=True, help="The centre, or the mean of it and the corners.")
@click.option("--reset-each-step", is_flag=True, help="Also measure without memory: initial states before each subclip.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tables and pictures.")
def evaluate_command(what: Path, data: Path, split: int, engine: str, threads: int, crops: str, reset_each_step: bool, out: Path | None) -> None:
    """Measure accuracy of WHAT, a run or a bundle, on the test list of DATA, one video after the other."""
    if out is not None:
        check_replaceable(out, "summary.json", "evaluation")
    console = new_console()
    data_set = read_data_set(data, split)
    with _subject(what, engine, threads) as subject:
        if subject.classes != data_set.classes:
            raise ClipstepError(
                f"{data}: has other classes than {what}", got=", ".join(data_set.classes), expected=", ".join(subject.classes),
                fix="evaluate on the classes that were trained",
            )  # fmt: skip
        console.print(subject.description)
        found = [
            predict_videos(partial(subject.logits, reset=reset), data_set.test, subject.frames, subject.size, console, crops=int(crops))
            for reset in ([False, True] if reset_each_step else [False])
        ]
    predictions, unusable = found[0]
    for path, reason in unusable.items():
        console.print(f"skipped {path}: {reason}", soft_wrap=True)
    summary = {"what": subject.description, "crops": int(crops), **summarise(predictions, subject.classes, unusable)}
    if reset_each_step:
        summary["reset_each_step"] = summarise(found[1][0], subject.classes, unusable)
    console.print(_table(summary))
    if out is not None:
        write_evaluation(out, summary, predictions, subject.classes)
        console.print(f"wrote {out}")


def summarise(predictions: Sequence[Prediction], classes: Sequence[str], unusable: Mapping[str, str]) -> dict[str, Any]:
    """All figures of an evaluation; shares are of 1."""
    matrix = confusion_matrix(predictions, len(classes))
    videos = matrix.sum(axis=1)
    return {
        "videos": len(predictions),
        "skipped_videos": dict(unusable),
        "largest_class_share": largest_share(p.label for p in predictions),
        "top1": top_k_share(predictions, 1),
        "top5": top_k_share(predictions, 5) if len(classes) > 5 else None,
        "per_class": {
            name: {"videos": int(count), "right": float(matrix[index, index] / count) if count else None}
            for index, (name, count) in enumerate(zip(classes, videos, strict=True))
        },
        "seen": {f"{seen:.1f}": top_k_share(predictions, 1, seen) for seen in SEEN},
        "confusion": matrix.tolist(),
    }


def write_evaluation(out: Path, summary: Mapping[str, Any], predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """``summary.json``, every prediction, and tables and pictures of it, whole or not at all."""
    with write_whole(out) as new:
        (new / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        _csv(new / "predictions.csv", ["video", "class", *classes], ([p.path, classes[p.label], *p.probabilities[-1].tolist()] for p in predictions))
        _csv(new / "per_class.csv", ["class", "videos", "right"], ([name, *row.values()] for name, row in summary["per_class"].items()))
        _csv(new / "confusion.csv", ["is", *classes], ([name, *row] for name, row in zip(classes, summary["confusion"], strict=True)))
        _csv(new / "seen.csv", ["share_seen", "top1"], summary["seen"].items())
        plot_confusion(new / "confusion.png", summary["confusion"], classes)
        plot_seen(new / "seen.png", summary["seen"], summary["largest_class_share"])


@contextmanager
def _subject(what: Path, engine: str, threads: int) -> Iterator[Subject]:
    if (what / MANIFEST).is_file():
        with StepModel.load(what, engine, threads) as model:
            frames, size = model.interface.input.shape[:2]
            yield Subject(model.description, model.labels, frames, size, lambda subclips, reset: bundle_logits(model, subclips, reset=reset))
        return
    run = load_run(what)
    config = run.info.config
    yield Subject(
        f"{what}: the network in PyTorch", run.info.classes, config["frames"], config["size"],
        lambda subclips, reset: video_logits(run.network, subclips, run.info, reset=reset),
    )  # fmt: skip


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table("", show_edge=False)
    for heading in ("videos", "right", *(["right, states reset at each step"] if "reset_each_step" in summary else [])):
        table.add_column(heading, justify="right")
    each = [summary, *([summary["reset_each_step"]] if "reset_each_step" in summary else [])]
    for name, row in summary["per_class"].items():
        table.add_row(name, str(row["videos"]), *(_percent(one["per_class"][name]["right"]) for one in each))
    table.add_section()
    table.add_row("top-1", str(summary["videos"]), *(_percent(one["top1"]) for one in each))
    if summary["top5"] is not None:
        table.add_row("top-5", str(summary["videos"]), *(_percent(one["top5"]) for one in each))
    for seen in ("0.2", "0.5"):
        table.add_row(f"top-1 when {float(seen):.0%} of a video was seen", "", *(_percent(one["seen"][seen]) for one in each))
    table.add_row("always the largest class", "", _percent(summary["largest_class_share"]))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
