"""``clipstep report``: one table of a bundle's artifacts with their measurements."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.arm64.table import KEY, instruction_table
from clipstep.benchmarks.output import real_time_text
from clipstep.benchmarks.records import InstructionRecord, Record, naive_ms
from clipstep.runtime.bundle import Bundle, open_for_command
from clipstep.runtime.bundle.manifest import Accuracy, Arm64Step
from clipstep.runtime.command_line.confidence_interval import proportion_text
from clipstep.runtime.command_line.options import command, json_option, signer_option
from clipstep.runtime.command_line.terminal import new_console, new_table, print_json, print_table
from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.path_checks import check_file


@command("report")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("records", type=click.Path(path_type=Path))
@signer_option
@json_option
def report_command(bundle: Path, records: Path, signer: Path | None, as_json: bool) -> None:
    """Summarise BUNDLE with the RECORDS that clipstep bench --out wrote: training, artifacts, parity, latency, ARM64 instructions."""
    opened = click.get_current_context().with_resource(open_for_command(bundle, signer))
    timed, counted, others = _select(opened, *read_records(records), records)
    if as_json:
        manifest = opened.manifest
        print_json(
            {
                "bundle": str(bundle),
                "name": manifest.name,
                "training": manifest.training,
                "artifacts": [artifact.model_dump(mode="json") for artifact in manifest.artifacts],
                "records": [record.model_dump(mode="json") for record in timed],
                "instruction_records": [record.model_dump(mode="json") for record in counted],
                "left_out": dict(others),
            }
        )
        return
    console = new_console()
    _print_training(opened, console)
    frames, compared = opened.manifest.input.shape[0], max(artifact.parity.steps for artifact in opened.manifest.artifacts)
    console.print(f"{opened.manifest.name}: one step is {frames} frames; largest errors are over {compared} steps at export", soft_wrap=True)
    print_table(console, _table(opened, timed))
    for name, number in others.items():
        console.print(f"left out: {number} of another network or of artifacts that this bundle does not hold, measured on {name}", soft_wrap=True)
    if counted:
        print_table(console, instruction_table(counted))
        console.print(KEY, soft_wrap=True)
    for artifact in opened.manifest.artifacts:
        if artifact.accuracy:
            console.print(_accuracy(artifact.file, artifact.accuracy), soft_wrap=True)
        if artifact.arm64_step:
            console.print(_arm64(artifact.file, artifact.arm64_step), soft_wrap=True)
    console.print(f"{opened.manifest.provenance.kind:<9} {opened.manifest.provenance.source}\nbundle    {bundle}\nrecords   {records}")


def _select(
    bundle: Bundle, timed: Sequence[Record], counted: Sequence[InstructionRecord], path: Path
) -> tuple[list[Record], list[InstructionRecord], Mapping[str, int]]:
    """Select the records of this bundle's artifacts and of the network behind it, and count those of other bundles.

    The record of a reference, such as PyTorch, belongs to the network whose weights' hash it holds. A record by an earlier version of clipstep holds
    no such hash, and belongs to the artifacts that were measured in the same run.

    Raises:
        ClipstepError: no record belongs to this bundle.
    """
    every: list[Record | InstructionRecord] = [*timed, *counted]
    artifacts = {artifact.sha256 for artifact in bundle.manifest.artifacts}
    measured_together = {record.manifest_sha256 for record in every if record.artifact_sha256 in artifacts}

    def is_select(record: Record | InstructionRecord) -> bool:
        if record.artifact_sha256 is not None:
            return record.artifact_sha256 in artifacts
        if record.weights_sha256 is not None:
            return record.weights_sha256 == bundle.manifest.provenance.weights_sha256
        return record.manifest_sha256 in measured_together

    others = Counter(record.bundle for record in every if not is_select(record))
    if others.total() == len(every):
        got = f"records of {', '.join(others)} with other artifacts" if others else "none at all"
        raise ClipstepError(f"{path}: holds no record of {bundle.path}", got=got, fix="give its own, or measure it")
    return [r for r in timed if is_select(r)], [r for r in counted if is_select(r)], others


def read_records(path: Path) -> tuple[list[Record], list[InstructionRecord]]:
    """Read a file of records, one JSON object a line: return those of times, and those of ARM64 instructions.

    Raises:
        ClipstepError: there is no such file, or a line is not a record.
    """
    check_file(path, "records written by clipstep bench --out", fix="run it first")
    timed: list[Record] = []
    counted: list[InstructionRecord] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise ClipstepError(f"{path}: is not a file of records", got=error_summary(error), expected="what clipstep bench --out wrote") from error
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if "arch" in values:
                counted.append(_validated(InstructionRecord, values))
            else:
                timed.append(_validated(Record, values))
        except (ValueError, AttributeError) as error:
            raise ClipstepError(f"{path}:{number}: is not a record", got=error_summary(error), fix="measure again") from error
    return timed, counted


def _validated(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind.model_validate({key: value for key, value in values.items() if key not in kind.model_computed_fields})


def _print_training(bundle: Bundle, console: Console) -> None:
    training = bundle.manifest.training
    if "test_top1" not in training:
        return
    try:
        init = training.get("init")
        how = f"fine-tuned from {init['from']}" if init else "trained"
        line = (
            f"{how} {training['minutes']:.1f} min on {training['train_videos']} videos; test top-1 "
            f"{proportion_text(training['test_top1'], training['test_videos'])}, largest class {training['test_largest_class_share']:.1%}"
        )
        warnings = [str(warning) for warning in training.get("warnings", ())]
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ClipstepError(f"{bundle.path}: the manifest's training summary is malformed", got=repr(error), fix="export it again") from error
    console.print(line, soft_wrap=True, markup=False)
    for warning in warnings:
        console.print(f"a warning of that training: {warning}", soft_wrap=True, markup=False)


def _table(bundle: Bundle, records: list[Record]) -> Table:
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
    return f"{file} in {accuracy.engine}: top-1 {proportion_text(accuracy.top1, accuracy.videos)}{top5}: {accuracy.dataset}{crops}"


def _arm64(file: str, step: Arm64Step) -> str:
    return (
        f"{file} in {step.engine} {step.engine_version} on ARM64: {step.instructions / 1e6:.1f} M instructions a step, of them "
        f"{step.vector_fmas / 1e6:.1f} M vector FMAs, {step.loads / 1e6:.1f} M loads and {step.stores / 1e6:.1f} M stores"
    )


def _measured(record: Record, naive: dict[int, float]) -> tuple[str, str, str, str]:
    p50, threads = record.percentile_ms(50), record.configuration.threads
    ratio = f"{naive[threads] / p50:.2f}" if threads in naive and record.parts is None else "-"
    return str(threads), f"{p50:.1f}", ratio, real_time_text(record)
