"""``clipstep report``: one table of a bundle's artifacts, with what was measured of each."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.records import Record, naive_ms
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import Accuracy
from clipstep.runtime.terminal import new_console


@click.command("report")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("records", type=click.Path(path_type=Path))
def report_command(bundle: Path, records: Path) -> None:
    """Summarise BUNDLE with the RECORDS that clipstep bench --out wrote: training, artifacts, parity, latency."""
    opened = Bundle.open(bundle)
    console = new_console()
    _print_training(opened, console)
    console.print(f"{opened.manifest.name}: one step is {opened.manifest.input.shape[0]} frames", soft_wrap=True)
    console.print(_table(opened, read_records(records)))
    for artifact in opened.manifest.artifacts:
        if artifact.accuracy:
            console.print(_accuracy(artifact.file, artifact.accuracy), soft_wrap=True)
    console.print(f"run       {opened.manifest.provenance.run}\nbundle    {bundle}\nrecords   {records}")


def read_records(path: Path) -> list[Record]:
    """The records in a file of one JSON object a line.

    Raises:
        ClipstepError: there is no such file, or a line is not a record.
    """
    if not path.is_file():
        raise ClipstepError(f"{path}: no such file", expected="records written by clipstep bench --out", fix="run it first")
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
            records.append(Record.model_validate({key: value for key, value in values.items() if key not in Record.model_computed_fields}))
        except (ValueError, AttributeError) as error:
            raise ClipstepError(f"{path}:{number}: is not a record", got=str(error).splitlines()[0], fix="measure again") from error
    return records


def _print_training(bundle: Bundle, console: Console) -> None:
    training = bundle.manifest.provenance.training
    if "test_top1" in training:
        console.print(
            f"trained {training['minutes']:.1f} min on {training['train_videos']} videos; test top-1 {training['test_top1']:.1%} "
            f"of {training['test_videos']} (larger class {training['test_largest_class_share']:.1%})"
        )


def _table(bundle: Bundle, records: list[Record]) -> Table:
    table = Table()
    for heading in ("artifact", "MB", "parity: largest error", "threads", "ms a step", "times naive", "times real time"):
        table.add_column(heading, justify="left" if heading == "artifact" else "right")
    naive = naive_ms(records)
    for artifact in bundle.manifest.artifacts:
        measured: list[Record | None] = [r for r in records if r.artifact_sha256 == artifact.sha256]
        for record in measured or [None]:
            threads, step, ratio, real_time = ("-", "not run here", "-", "-") if record is None else _measured(record, naive)
            error = f"{artifact.parity.max_absolute_error:.1e} in {artifact.parity.steps} steps"
            table.add_row(artifact.file, f"{artifact.size_bytes / 1e6:.1f}", error, threads, step, ratio, real_time)
    for record in records:
        if record.artifact_sha256 is None:
            threads, step, ratio, real_time = _measured(record, naive)
            size = f"{record.file_bytes / 1e6:.1f}" if record.file_bytes else "-"
            table.add_row(record.subject.name, size, "the reference" if record.subject.engine == "pytorch" else "-", threads, step, ratio, real_time)
    return table


def _accuracy(file: str, accuracy: Accuracy) -> str:
    top5 = "" if accuracy.top5 is None else f", top-5 {accuracy.top5:.1%}"
    crops = f", {accuracy.crops} crops" if accuracy.crops > 1 else ""
    return f"{file} in {accuracy.engine}: top-1 {accuracy.top1:.1%}{top5} of {accuracy.videos} videos ({accuracy.data}{crops})"


def _measured(record: Record, naive: dict[int, float]) -> tuple[str, str, str, str]:
    p50, threads = record.percentile_ms(50), record.subject.threads
    ratio = f"{naive[threads] / p50:.2f}" if threads in naive else "-"
    return str(threads), f"{p50:.1f}", ratio, f"{record.real_time_factor:.0f}"
