"""``clipstep evaluate``: the accuracy of a run, or of a bundle in its engine, on a data set; also of two of them averaged."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from torch import Tensor

from clipstep.runtime.bundle import MANIFEST, Bundle, is_bundle, open_for_command
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.bundle.recording import check_recordable, record_accuracy
from clipstep.runtime.command_line.confidence_interval import wilson_interval
from clipstep.runtime.command_line.options import is_given
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.runtime.engines import engine_info
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_folder
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.filesystem.overwrite import FolderKind, check_overwrite
from clipstep.runtime.model import StepModel
from clipstep.runtime.output_kind import OutputKind
from clipstep.runtime.video import VideoError
from clipstep.training.data.lists import DataSet, read_data_set
from clipstep.training.data.trained_on import TrainedOn, check_unseen
from clipstep.training.metrics import SEEN, confusion_matrix, largest_share, top_k_share, top_k_when_seen
from clipstep.training.plots import plot_confusion, plot_seen
from clipstep.training.predict import VideoPrediction, bundle_logits, fused, predict_videos, video_logits
from clipstep.training.run import load_run

EVALUATION = FolderKind(
    "evaluation", "summary.json", lambda _: ("predictions.csv", "per_class.csv", "confusion.csv", "seen.csv", "confusion.png", "seen.png")
)


@dataclass(frozen=True)
class EvaluatedModel:
    """A run or a bundle to evaluate: its class names, the shape ``(T, size, channels)`` of a subclip, its frames a second, and how it predicts.

    ``logits(subclips, reset=...)`` returns the outputs after each subclip of a video; ``reset`` resets the states before each of them.
    """

    what: Path
    description: str
    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    fps: float
    logits: Callable[..., Tensor]
    trained_on: TrainedOn | None = None
    """What it was trained on; None if it does not say."""
    output_kind: OutputKind = "logits"
    """What these outputs hold: logits, probabilities, or several labels at once."""


def evaluate_command(
    what: Path,
    data: Path,
    split: int,
    layout: str,
    signer: Path | None,
    engine: str,
    threads: int,
    crops: str,
    reset_each_step: bool,
    other: Path | None,
    record: bool,
    out: Path | None,
    force: bool,
    allow_leakage: bool,
    as_json: bool = False,
) -> None:
    """``clipstep evaluate``, whose options are in cli.py."""
    _check_options(what, other, reset_each_step, record, out, force)
    console = new_console(quiet=as_json)
    data_set = read_data_set(data, split, layout=layout, allow_leakage=allow_leakage)
    with ExitStack() as stack:
        models = [
            stack.enter_context(_evaluated_model(path, signer, engine, threads, reset_each_step)) for path in (what, *([other] if other else []))
        ]
        for model in models:
            _check_comparable(model, models[0], data, data_set)
            data_set = check_unseen(data_set, model.trained_on, model.what, allow_leakage=allow_leakage, fix="give lists that it was not trained on")
        for line in (*(f"warning: {warning}" for warning in data_set.warnings), *(model.description for model in models)):
            console.print(line, soft_wrap=True)
        found = {
            heading: predict_videos(
                partial(model.logits, reset=reset), data_set.test, model.shape, model.fps, console, crops=int(crops), output_kind=model.output_kind
            )
            for heading, model, reset in _columns(models, reset_each_step)
        }
    predictions, unusable = _of_all(found)
    if other is not None:
        predictions = {"accuracy": fused(*predictions.values()), **predictions}
    for path, reason in unusable.items():
        console.print(f"skipped {path}: {reason.removeprefix(f'{path}: ')}", soft_wrap=True)
    if unusable:
        console.print(f"{len(unusable)} of {len(data_set.test)} videos were skipped, and count neither as right nor as wrong")
    summary, *rest = (summarise(each, data_set.labels, unusable) for each in predictions.values())
    print_table(console, _table(dict(zip(predictions, (summary, *rest), strict=True))))
    if record:
        leaky = ", some of whose videos it was trained on or counts twice" if data_set.leaks else ""
        _record(what, engine, f"{data}, {data_set.test_list}{leaky}", int(crops), summary)
        console.print(f"noted in {what / MANIFEST}")
    about = {"what": [model.description for model in models], "crops": int(crops), "warnings": list(data_set.warnings), **summary}
    also = {"each_alone": rest} if other else {"reset_each_step": rest[0]} if reset_each_step else {}
    if as_json:
        print_json({**about, **also})
    if out is not None:
        write_evaluation(out, {**about, **also}, predictions["accuracy"], data_set.labels, replace=force)
        console.print(f"wrote {out}")


def _check_options(what: Path, other: Path | None, reset_each_step: bool, record: bool, out: Path | None, force: bool) -> None:
    options = [f"--{name}" for name in ("signer", "engine", "threads") if is_given(click.get_current_context(), name)]
    if options and not any(is_bundle(path) for path in (what, other) if path is not None):
        raise ClipstepError(f"{' and '.join(options)} is for a bundle; a run is evaluated in PyTorch", fix=f"leave {' and '.join(options)} out")
    if other is not None and (reset_each_step or record):
        raise ClipstepError("--with cannot be combined with --reset-each-step or --record", fix="evaluate each alone")
    if record and not is_bundle(what):
        raise ClipstepError("--record notes what a bundle reaches", got=what, expected="a folder written by clipstep export")
    if record:
        with Bundle.open(what, lazily=True) as bundle:
            check_recordable(bundle)
    if out is not None:
        click.get_current_context().with_resource(write_lock(out))
        check_overwrite(out, EVALUATION, force=force)


def _of_all(found: Mapping[str, tuple[Sequence[VideoPrediction], Mapping[str, str]]]) -> tuple[dict[str, Sequence[VideoPrediction]], dict[str, str]]:
    """Return the predictions of those videos that every measured column could use, and the other videos with the reason."""
    unusable = {path: reason for _, skipped in found.values() for path, reason in skipped.items()}
    predictions: dict[str, Sequence[VideoPrediction]] = {
        heading: [p for p in predicted if str(p.path) not in unusable] for heading, (predicted, _) in found.items()
    }
    if not all(predictions.values()):
        raise VideoError("no video that both can use", got=next(iter(unusable.values())), expected="a video in the test list")
    return predictions, unusable


def _record(what: Path, engine: str, data: str, crops: int, summary: Mapping[str, Any]) -> None:
    bundle = Bundle.open(what)
    accuracy = Accuracy(dataset=data, engine=engine, videos=summary["videos"], crops=crops, top1=summary["top1"], top5=summary["top5"])
    record_accuracy(bundle, bundle.artifact(engine_info(engine).target).file, accuracy)


def _columns(models: Sequence[EvaluatedModel], reset_each_step: bool) -> list[tuple[str, EvaluatedModel, bool]]:
    """Return the columns of the table to measure: one for each of two models, or, for a single model, one with its memory and one without.

    The one without memory is there only with ``reset_each_step``. A column is its heading, its model, and whether the states are reset before each
    subclip.
    """
    if len(models) > 1:
        return [("the first alone", models[0], False), ("the second alone", models[1], False)]
    without = [("accuracy without memory", models[0], True)] if reset_each_step else []
    return [("accuracy", models[0], False), *without]


def _check_comparable(model: EvaluatedModel, first: EvaluatedModel, data: Path, data_set: DataSet) -> None:
    if model.labels != data_set.labels:
        raise ClipstepError(
            f"{data}: has other classes than {model.what}",
            got=", ".join(data_set.labels),
            expected=", ".join(model.labels),
            fix="evaluate on the classes that were trained",
        )
    if model.output_kind.startswith("multilabel") != first.output_kind.startswith("multilabel"):
        raise ClipstepError(
            f"{model.what}: its classes {'exclude each other' if first.output_kind.startswith('multilabel') else 'do not exclude each other'}",
            got=model.output_kind,
            expected=f"{first.output_kind} as of the first, to average the probabilities",
        )
    if model.shape[0] != first.shape[0]:
        raise ClipstepError(
            f"{model.what}: has subclips of another length", got=f"{model.shape[0]} frames", expected=f"{first.shape[0]} as the first"
        )


def summarise(predictions: Sequence[VideoPrediction], labels: Sequence[str], unusable: Mapping[str, str]) -> dict[str, Any]:
    """Return all figures of an evaluation as JSON values; shares are between 0 and 1."""
    matrix = confusion_matrix(predictions, len(labels))
    seen = {f"{share:.1f}": top_k_when_seen(predictions, 1, share) for share in SEEN}
    videos = matrix.sum(axis=1)
    return {
        "videos": len(predictions),
        "skipped_videos": dict(unusable),
        "largest_class_share": largest_share(p.label for p in predictions),
        "top1": top_k_share(predictions, 1),
        "top5": top_k_share(predictions, 5) if len(labels) > 5 else None,
        "per_class": {
            name: {"videos": int(count), "accuracy": float(matrix[index, index] / count) if count else None}
            for index, (name, count) in enumerate(zip(labels, videos, strict=True))
        },
        "seen": {share: accuracy for share, (accuracy, _) in seen.items()},
        "seen_videos": {share: count for share, (_, count) in seen.items()},
        "confusion": matrix.tolist(),
    }


def write_evaluation(
    out: Path, summary: Mapping[str, Any], predictions: Sequence[VideoPrediction], labels: Sequence[str], *, replace: bool = False
) -> None:
    """Write ``summary.json``, every prediction, and tables and plots, all of them or none."""
    with atomic_folder(out, replace=replace) as new:
        (new / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        _csv(new / "predictions.csv", ["video", "class", *labels], ([p.path, labels[p.label], *p.probabilities[-1].tolist()] for p in predictions))
        _csv(new / "per_class.csv", ["class", "videos", "accuracy"], ([name, *row.values()] for name, row in summary["per_class"].items()))
        _csv(new / "confusion.csv", ["true class", *labels], ([name, *row] for name, row in zip(labels, summary["confusion"], strict=True)))
        _csv(
            new / "seen.csv",
            ["share_seen", "top1", "videos"],
            ((share, accuracy, summary["seen_videos"][share]) for share, accuracy in summary["seen"].items()),
        )
        plot_confusion(new / "confusion.png", summary["confusion"], labels)
        plot_seen(new / "seen.png", summary["seen"], summary["largest_class_share"])


@contextmanager
def _evaluated_model(what: Path, signer: Path | None, engine: str, threads: int, reset_each_step: bool) -> Iterator[EvaluatedModel]:
    if is_bundle(what):
        with ExitStack() as stack:
            bundle = stack.enter_context(open_for_command(what, signer, lazily=True))
            model = stack.enter_context(StepModel.load(bundle, engine, threads, isolated=True))
            spec = model.interface.input
            if spec.kind != "video":
                raise ClipstepError(f"{what}: takes no videos", got=f"a bundle for {spec.content}", expected="one for RGB frames or optical flow")
            frames, size, _, channels = spec.shape
            if reset_each_step and model.interface.frames_needed > frames:
                raise ClipstepError(
                    f"--reset-each-step: {what} says nothing after a step from its initial states",
                    got=f"steps of {frames} frames",
                    expected=f"{model.interface.frames_needed} frames",
                    fix="evaluate it without, or export it with a larger --stream",
                )
            yield EvaluatedModel(
                what,
                f"{what}: {model.description}",
                model.labels,
                (frames, size, channels),
                spec.fps,
                lambda subclips, reset: bundle_logits(model, subclips, reset=reset),
                TrainedOn.read(bundle.manifest.training, what),
                model.interface.output_kind,
            )
        return
    run = load_run(what)
    yield EvaluatedModel(
        what,
        f"{what}: the network in PyTorch",
        run.info.labels,
        run.info.shape,
        run.info.fps,
        lambda subclips, reset: video_logits(run.network, subclips, run.info, reset=reset),
        TrainedOn.read(run.info.training, what),
    )


def _table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    table = new_table("", "videos", *(heading.replace(" without", "\nwithout") for heading in summaries))
    each = list(summaries.values())
    for name, row in each[0]["per_class"].items():
        table.add_row(name, str(row["videos"]), *(_percent(one["per_class"][name]["accuracy"]) for one in each))
    table.add_section()
    table.add_row("top-1", str(each[0]["videos"]), *(_percent(one["top1"]) for one in each))
    table.add_row("its 95% interval", "", *(_interval(one) for one in each))
    if each[0]["top5"] is not None:
        table.add_row("top-5", str(each[0]["videos"]), *(_percent(one["top5"]) for one in each))
    for seen in ("0.2", "0.5"):
        count = each[0]["seen_videos"][seen]
        said = str(count) if count < each[0]["videos"] else ""
        table.add_row(f"top-1 when {float(seen):.0%} of a video was seen", said, *(_percent(one["seen"][seen]) for one in each))
    table.add_row("always the largest class", "", _percent(each[0]["largest_class_share"]))
    return table


def _interval(summary: Mapping[str, Any]) -> str:
    low, high = wilson_interval(summary["top1"], summary["videos"])
    return f"{low:.0%} to {high:.0%}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
