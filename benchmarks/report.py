"""``clipstep report``: one table of a bundle's artifacts with their measurements, or a page with all that is known of them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from clipstep.benchmarks.arm64.processor import CPU
from clipstep.benchmarks.arm64.table import KEY, instruction_table, processor_lines
from clipstep.benchmarks.output import real_time_text
from clipstep.benchmarks.records import AnyRecord, InstructionRecord, ProfileRecord, Record, Records, SustainedRecord, naive_ms
from clipstep.benchmarks.report_page.data import report_of
from clipstep.benchmarks.report_page.page import page
from clipstep.benchmarks.report_page.profiles import longest_kind
from clipstep.benchmarks.report_page.training import training_lines
from clipstep.benchmarks.sustained import print_sustained
from clipstep.runtime.bundle import Bundle, open_for_command
from clipstep.runtime.bundle.manifest import Accuracy, Arm64Step
from clipstep.runtime.command_line.accuracy_text import against_text
from clipstep.runtime.command_line.confidence_interval import proportion_text
from clipstep.runtime.command_line.options import OutputFile, command, json_option, signer_option
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.filesystem.overwrite import check_overwrite
from clipstep.runtime.filesystem.path_checks import check_file

KINDS: dict[str, type[AnyRecord]] = {"arch": InstructionRecord, "profiled_steps": ProfileRecord, "sustained_s": SustainedRecord}
"""The kinds of records that are not of a step's times alone, by a key that only they have."""

FORMERLY_COMPUTED = ("needed_fmas", "needed_fmas_per_vector_fma", "needed_fmas_per_instruction")
"""Keys that records of earlier versions have beside what they hold."""


@command("report", needs=[("evaluation", "html"), ("force", "html")])
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("records", type=click.Path(path_type=Path))
@signer_option
@click.option("--html", type=OutputFile(), help="Also write a page with all that is known to this file; it loads nothing from elsewhere.")
@click.option(
    "--evaluation", type=click.Path(path_type=Path), help="With --html: the folder that clipstep evaluate --out wrote, for the confusion matrix."
)
@click.option("--force", is_flag=True, help="Replace an older page of --html.")
@json_option
def report_command(bundle: Path, records: Path, signer: Path | None, html: Path | None, evaluation: Path | None, force: bool, as_json: bool) -> None:
    """Summarise BUNDLE with the RECORDS that clipstep bench --out wrote: training, artifacts, parity, latency, ARM64 instructions."""
    context = click.get_current_context()
    if html is not None:
        context.with_resource(write_lock(html))
        check_overwrite(html, force=force, option="--html")
    opened = context.with_resource(open_for_command(bundle, signer))
    own, others = _select(opened, read_records(records), records)
    if html is not None:
        text = page(report_of(opened, own, others, records, evaluation))
        with atomic_file(html) as new:
            new.write_text(text, encoding="utf-8")
    if as_json:
        manifest = opened.manifest
        print_json(
            {
                "bundle": str(bundle),
                "name": manifest.name,
                "training": manifest.training,
                "artifacts": [artifact.model_dump(mode="json") for artifact in manifest.artifacts],
                "records": [record.model_dump(mode="json") for record in own.timed],
                "instruction_records": [record.model_dump(mode="json") for record in own.counted],
                "profile_records": [record.model_dump(mode="json") for record in own.profiled],
                "sustained_records": [record.model_dump(mode="json") for record in own.sustained],
                "left_out": dict(others),
            }
        )
        return
    console = new_console()
    for line in training_lines(opened):
        console.print(line, soft_wrap=True)
    frames, compared = opened.manifest.input.shape[0], max(artifact.parity.steps for artifact in opened.manifest.artifacts)
    console.print(f"{opened.manifest.name}: one step is {frames} frames; largest errors are over {compared} steps at export", soft_wrap=True)
    print_table(console, _table(opened, own.timed))
    for name, number in others.items():
        console.print(f"left out: {number} of another network or of artifacts that this bundle does not hold, measured on {name}", soft_wrap=True)
    if own.counted:
        print_table(console, instruction_table(own.counted))
        for line in (KEY, *processor_lines(own.counted)):
            console.print(line, soft_wrap=True)
    print_sustained(console, own.sustained)
    for profile in own.profiled:
        console.print(longest_kind(profile), soft_wrap=True)
    for artifact in opened.manifest.artifacts:
        if artifact.accuracy:
            console.print(_accuracy(artifact.file, artifact.accuracy), soft_wrap=True)
        if artifact.arm64_step:
            console.print(_arm64(artifact.file, artifact.arm64_step), soft_wrap=True)
    console.print(f"{opened.manifest.provenance.kind:<9} {opened.manifest.provenance.source}\nbundle    {bundle}\nrecords   {records}")
    if html is not None:
        console.print(f"wrote {html}", soft_wrap=True)


def html_report(bundle: Path | str, records: Path | str | Sequence[AnyRecord], *, evaluation: Path | str | None = None) -> str:
    """Return a page with all that is known of a bundle: what to ship for which platform, latency, memory, placement, parity and provenance.

    The page is one HTML file that loads nothing from elsewhere, and it is the same for the same input.

    Example:
        ```python
        Path("report.html").write_text(html_report("fight.clipstep", bench("fight.clipstep")), encoding="utf-8")
        ```

    Args:
        bundle: The folder that ``clipstep export`` wrote, or a pack of it.
        records: The file that ``clipstep bench --out`` wrote, or the records themselves.
        evaluation: The folder that ``clipstep evaluate --out`` wrote, for the confusion matrix.

    Raises:
        ClipstepError: A file is not what it should be; no record belongs to the bundle; the evaluation is of other classes.
    """
    if isinstance(records, Path | str):
        path, given = Path(records), read_records(Path(records))
    else:
        path, given = None, Records.of(records)
    with Bundle.open(Path(bundle)) as opened:
        own, others = _select(opened, given, path)
        return page(report_of(opened, own, others, path, None if evaluation is None else Path(evaluation)))


def _select(bundle: Bundle, records: Records, path: Path | None) -> tuple[Records, Mapping[str, int]]:
    """Select the records of this bundle's artifacts and of the network behind it, and count those of other bundles. ``path`` is for the message.

    The record of a reference, such as PyTorch, belongs to the network whose weights' hash it holds. A record by an earlier version of clipstep holds
    no such hash, and belongs to the artifacts that were measured in the same run.

    Raises:
        ClipstepError: no record belongs to this bundle.
    """
    every = records.every()
    artifacts = {artifact.sha256 for artifact in bundle.manifest.artifacts}
    measured_together = {record.manifest_sha256 for record in every if record.artifact_sha256 in artifacts}

    def is_select(record: AnyRecord) -> bool:
        if record.artifact_sha256 is not None:
            return record.artifact_sha256 in artifacts
        if record.weights_sha256 is not None:
            return record.weights_sha256 == bundle.manifest.provenance.weights_sha256
        return record.manifest_sha256 in measured_together

    others = Counter(record.bundle for record in every if not is_select(record))
    if others.total() == len(every):
        got = f"records of {', '.join(others)} with other artifacts" if others else "none at all"
        raise ClipstepError(f"{path or 'the records'}: holds no record of {bundle.path}", got=got, fix="give its own, or measure it")
    return Records.of([record for record in every if is_select(record)]), others


def read_records(path: Path) -> Records:
    """Read a file of records, one JSON object a line.

    Raises:
        ClipstepError: there is no such file, or a line is not a record.
    """
    check_file(path, "records written by clipstep bench --out", fix="run it first")
    records: list[AnyRecord] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise ClipstepError(f"{path}: is not a file of records", got=error_summary(error), expected="what clipstep bench --out wrote") from error
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            kind = next((kind for key, kind in KINDS.items() if key in values), Record)
            records.append(_validated(kind, values))
        except (ValueError, AttributeError) as error:
            raise ClipstepError(f"{path}:{number}: is not a record", got=error_summary(error), fix="measure again") from error
    return Records.of(records)


def _validated(kind: type[Any], values: dict[str, Any]) -> Any:
    computed = {*kind.model_computed_fields, *FORMERLY_COMPUTED}
    return kind.model_validate({key: value for key, value in values.items() if key not in computed})


def _table(bundle: Bundle, records: Sequence[Record]) -> Table:
    table = new_table("artifact", "MB", "largest\nerror", "threads", "ms a step", "times\nnaive", "times\nreal time")
    naive = naive_ms(records)
    for artifact in bundle.manifest.artifacts:
        measured: list[Record | None] = [r for r in records if r.artifact_sha256 == artifact.sha256]
        for record in measured or [None]:
            threads, step, ratio, real_time = ("-", "not run here", "-", "-") if record is None else _measured(record, naive)
            error = f"{artifact.parity.max_absolute_error:.1e}"
            name = artifact.file if record is None else record.configuration.name
            table.add_row(name, f"{artifact.size_bytes / 1e6:.1f}", error, threads, step, ratio, real_time)
    for record in records:
        if record.artifact_sha256 is None:
            threads, step, ratio, real_time = _measured(record, naive)
            size = f"{record.file_bytes / 1e6:.1f}" if record.file_bytes else "-"
            table.add_row(
                record.configuration.name, size, "reference" if record.configuration.engine == "pytorch" else "-", threads, step, ratio, real_time
            )
    return table


def _accuracy(file: str, accuracy: Accuracy) -> str:
    top5 = "" if accuracy.top5 is None else f", top-5 {accuracy.top5:.1%}"
    crops = f", {accuracy.crops} crops" if accuracy.crops > 1 else ""
    on = f" on {accuracy.processor}" if accuracy.processor else ""
    own = f"{file} in {accuracy.engine}{on}: top-1 {proportion_text(accuracy.top1, accuracy.videos)}{top5}: {accuracy.dataset}{crops}"
    against = accuracy.against_float32
    return own if against is None else f"{own}\n{file} against {against.file}: {against_text(against)}"


def _arm64(file: str, step: Arm64Step) -> str:
    return (
        f"{file} in {step.engine} {step.engine_version} on ARM64 ({CPU}): {step.instructions / 1e6:.1f} M instructions a step, of them "
        f"{step.vector_fmas / 1e6:.1f} M vector FMAs, {step.loads / 1e6:.1f} M loads and {step.stores / 1e6:.1f} M stores"
    )


def _measured(record: Record, naive: dict[int, float]) -> tuple[str, str, str, str]:
    p50, threads = record.percentile_ms(50), record.configuration.threads
    ratio = f"{naive[threads] / p50:.2f}" if threads in naive and record.parts is None else "-"
    return str(threads), f"{p50:.1f}", ratio, real_time_text(record)
