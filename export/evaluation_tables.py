"""What `clipstep export --evaluate` prints: the accuracy of each artifact, and what those of lower precision lose against float32."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from clipstep.export.evaluating import EXACT, EvaluatedArtifacts
from clipstep.export.targets import TARGETS
from clipstep.runtime.bundle.manifest import Accuracy, AgainstFloat32, Artifact
from clipstep.runtime.command_line.accuracy_text import agreement_text, change_interval_text, points
from clipstep.runtime.command_line.confidence_interval import wilson_interval
from clipstep.runtime.command_line.terminal import new_table
from clipstep.runtime.wording import counted


def evaluation_lines(evaluated: EvaluatedArtifacts, artifacts: Sequence[Artifact], max_accuracy_drop: float | None) -> Iterator[str | Table]:
    """Yield the lines and tables that say what an evaluation of these artifacts found, held to that limit if there is one."""
    yield from (f"a warning: {warning}" for warning in evaluated.warnings)
    yield from (f"skipped {path}: {reason.removeprefix(f'{path}: ')}" for path, reason in evaluated.skipped_videos.items())
    compared = {file: accuracy.against_float32 for file, accuracy in evaluated.accuracies.items() if accuracy.against_float32 is not None}
    for first in list(evaluated.accuracies.values())[:1]:
        skipped = f", {first.skipped_videos} more skipped" * bool(first.skipped_videos)
        yield f"accuracy on {counted(first.videos, 'video')} of {first.dataset}{skipped}, measured on {first.processor}"
        yield _accuracies(evaluated.accuracies)
    evaluators = [TARGETS[artifact.target].evaluator for artifact in artifacts if artifact.file in evaluated.accuracies]
    yield from {f"a note: {evaluator.note}": None for evaluator in evaluators if evaluator is not None}
    for file, against in compared.items():
        yield f"{file} finds the same class as {against.file} after {agreement_text(against)}"
    if compared:
        steps = next(iter(compared.values())).drift_steps
        yield f"largest errors against float32 in {steps} steps in a row, as shares of the output's range"
        yield _drifts(compared)
    for file, against in compared.items():
        videos = counted(evaluated.accuracies[file].videos, "video")
        between = _between(*against.top1_change_interval)
        yield f"{videos} tell no more than this: {file}'s top-1 may be {between} that of {against.file} (95% interval)"
    lower = {artifact.file for artifact in artifacts if artifact.precision != EXACT} if max_accuracy_drop is not None else ()
    for file, reason in evaluated.not_evaluated.items():
        yield f"{file}: not evaluated{', and not held to --max-accuracy-drop' * (file in lower)}: {reason}"


def _between(low: float, high: float) -> str:
    """Return an interval of a change in words, such as `from 3.4 points below to 6.8 points above`."""
    ends = (f"{abs(100 * end):.1f} points {'below' if end < 0 else 'above'}" for end in (low, high))
    return f"from {' to '.join(ends)}"


def _accuracies(accuracies: Mapping[str, Accuracy]) -> Table:
    table = new_table("artifact", "top-1", "95% interval", "top-5", "change in\npoints", "95% interval")
    for file, accuracy in accuracies.items():
        low, high = wilson_interval(accuracy.top1, accuracy.videos)
        against = accuracy.against_float32
        change = ("", "") if against is None else (points(against.top1_change), change_interval_text(against))
        top5 = "-" if accuracy.top5 is None else f"{accuracy.top5:.1%}"
        table.add_row(file, f"{accuracy.top1:.1%}", f"{low:.0%} to {high:.0%}", top5, *change)
    return table


def _drifts(compared: Mapping[str, AgainstFloat32]) -> Table:
    table = new_table("artifact", "output", "first tenth\nof the steps", "last tenth", texts=2)
    for file, against in compared.items():
        for index, drift in enumerate(against.drift):
            table.add_row("" if index else file, drift.output, f"{drift.first_tenth:.2%}", f"{drift.last_tenth:.2%}")
    return table
