"""``clipstep evaluate``: the accuracy of a run, or of a bundle in its engine, on a data set; also of two of them averaged."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from clipstep.runtime.bundle import MANIFEST, Bundle, is_bundle, this_machine
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
from clipstep.runtime.video import VideoError
from clipstep.training.data.lists import read_data_set
from clipstep.training.data.trained_on import check_unseen
from clipstep.training.evaluation import EvaluatedModel, check_comparable, dataset_name, open_model, summarise
from clipstep.training.plots import plot_confusion, plot_seen
from clipstep.training.predict import VideoPrediction, fused, predict_videos

EVALUATION = FolderKind(
    "evaluation", "summary.json", lambda _: ("predictions.csv", "per_class.csv", "confusion.csv", "seen.csv", "confusion.png", "seen.png")
)


def evaluate_command(
    what: Path,
    data: Path,
    split: int,
    layout: str,
    signer: Path | None,
    engine: str,
    threads: int,
    precision: str,
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
            stack.enter_context(open_model(path, signer, engine, threads, precision, reset_each_step=reset_each_step))
            for path in (what, *([other] if other else []))
        ]
        for model in models:
            check_comparable(model, models[0], data, data_set)
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
        _record(what, engine, precision, dataset_name(data, data_set), int(crops), summary)
        console.print(f"noted in {what / MANIFEST}")
    about = {"what": [model.description for model in models], "crops": int(crops), "warnings": list(data_set.warnings), **summary}
    also = {"each_alone": rest} if other else {"reset_each_step": rest[0]} if reset_each_step else {}
    if as_json:
        print_json({**about, **also})
    if out is not None:
        write_evaluation(out, {**about, **also}, predictions["accuracy"], data_set.labels, replace=force)
        console.print(f"wrote {out}")


def _check_options(what: Path, other: Path | None, reset_each_step: bool, record: bool, out: Path | None, force: bool) -> None:
    options = [f"--{name}" for name in ("signer", "engine", "threads", "precision") if is_given(click.get_current_context(), name)]
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


def _record(what: Path, engine: str, precision: str, data: str, crops: int, summary: Mapping[str, Any]) -> None:
    bundle = Bundle.open(what)
    accuracy = Accuracy(
        dataset=data,
        engine=engine,
        videos=summary["videos"],
        crops=crops,
        top1=summary["top1"],
        top5=summary["top5"],
        skipped_videos=len(summary["skipped_videos"]),
        processor=this_machine(),
    )
    record_accuracy(bundle, bundle.artifact(engine_info(engine).target, precision=precision).file, accuracy)


def _columns(models: Sequence[EvaluatedModel], reset_each_step: bool) -> list[tuple[str, EvaluatedModel, bool]]:
    """Return the columns of the table to measure: one for each of two models, or, for a single model, one with its memory and one without.

    The one without memory is there only with ``reset_each_step``. A column is its heading, its model, and whether the states are reset before each
    subclip.
    """
    if len(models) > 1:
        return [("the first alone", models[0], False), ("the second alone", models[1], False)]
    without = [("accuracy without memory", models[0], True)] if reset_each_step else []
    return [("accuracy", models[0], False), *without]


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
