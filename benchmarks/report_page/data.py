"""What the page is made from: an open bundle, the records that belong to it, and an evaluation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from clipstep.benchmarks.records import SPINNING, AnyRecord, InstructionRecord, ProfileRecord, Record, Records, SustainedRecord
from clipstep.benchmarks.report_page.charts import short
from clipstep.benchmarks.report_page.evaluation import Evaluation
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted

KINDS = 15
"""How many kinds of operators a table lists; the others are added up."""


@dataclass(frozen=True)
class Report:
    """What the page is made from."""

    bundle: Bundle
    timed: tuple[Record, ...]
    """The records of times; the last of each configuration on each device."""
    counted: tuple[InstructionRecord, ...]
    """The records of ARM64 instructions; the last of each configuration."""
    profiled: tuple[ProfileRecord, ...]
    """The times of operators; the last of each configuration on each device."""
    sustained: tuple[SustainedRecord, ...]
    """The sustained runs on phones; the last of each configuration on each device."""
    replaced: int
    """How many older records of the same configurations are left out."""
    left_out: Mapping[str, int]
    """The number of records of other networks and artifacts, by the name of the bundle that was measured."""
    records_path: Path | None
    """The file of the records; None if they were in memory."""
    evaluation: Evaluation | None
    """What ``clipstep evaluate --out`` wrote; None if it is not given."""
    evaluation_path: Path | None

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The bundle's artifacts by their hash."""
        return {artifact.sha256: artifact for artifact in self.bundle.manifest.artifacts}

    def devices(self) -> dict[str, list[Record]]:
        """Return the records of times by the device that they were measured on, as `device_text` names it."""
        found: dict[str, list[Record]] = {}
        for record in self.timed:
            found.setdefault(device_text(record), []).append(record)
        return found


def report_of(
    bundle: Bundle,
    records: Records,
    left_out: Mapping[str, int],
    records_path: Path | None,
    evaluation_path: Path | None,
) -> Report:
    """Return what the page is made from: of each configuration its last record, and the evaluation in the folder ``evaluation_path``.

    Raises:
        ClipstepError: a record holds no times or counts, or numbers that cannot be any; the folder holds no evaluation, or one of other classes.
    """
    for record in records.timed:
        _check_times(record)
    for count in records.counted:
        _check_counts(count)
    for profile in records.profiled:
        _check_profile(profile)
    last = {(device_text(r), _key(r), r.pause_ms): r for r in records.timed}
    last_counted = {(r.cpu_model, _key(r)): r for r in records.counted}
    last_profiled = {(device_text(r), _key(r)): r for r in records.profiled}
    last_sustained = {(device_text(r), _key(r)): r for r in records.sustained}
    replaced = len(records.every()) - len(last) - len(last_counted) - len(last_profiled) - len(last_sustained)
    evaluation = None if evaluation_path is None else Evaluation.read(evaluation_path, bundle.manifest.labels)
    kept = (tuple(last.values()), tuple(last_counted.values()), tuple(last_profiled.values()), tuple(last_sustained.values()))
    return Report(bundle, *kept, replaced, left_out, records_path, evaluation, evaluation_path)


def device_text(record: Record | ProfileRecord | SustainedRecord) -> str:
    """Return the device of a record in a few words, without the version of a computer's system."""
    device = record.device
    phone = None if isinstance(record, ProfileRecord) else record.phone
    model = f"{phone.model}, {device.cpu_model}" if phone else device.cpu_model
    return f"{model}, {counted(device.cores, 'core')}, {device.machine}, {device.os.partition('-')[0]}"


def name_of(record: Record, beside: Sequence[Record]) -> str:
    """Return the name of a record's configuration in a chart, with what tells it apart from those ``beside`` it: its engine, threads and pause."""
    parts = [name_without_threads(record, beside)]
    if len({r.configuration.threads for r in beside}) > 1:
        parts.append(counted(record.configuration.threads, "thread"))
    if len({r.pause_ms for r in beside}) > 1:
        parts.append(f"pause {record.pause_ms:g} ms")
    return ", ".join(parts)


def name_without_threads(record: Record, beside: Sequence[Record]) -> str:
    """Return the same without the threads and the pause."""
    configuration = record.configuration
    engines = {r.configuration.engine for r in beside if r.configuration.name == configuration.name}
    spinning, engine = ", spinning" * configuration.spinning, f", {configuration.engine}" * (len(engines) > 1)
    return f"{short(configuration.name.removesuffix(SPINNING))}{spinning}{engine}"


def when_text(records: Sequence[AnyRecord]) -> str:
    """Return when records were measured, to the minute: `2026-11-28 12:00 to 12:30 UTC`, or that they do not hold it."""
    times = sorted(record.measured_utc.astimezone(UTC) for record in records if record.measured_utc is not None)
    if not times:
        return "not recorded"
    first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (times[0], times[-1]))
    day, minutes = last.split()
    until = "" if first == last else f" to {minutes if first.startswith(day) else last}"
    missing = len(records) - len(times)
    return f"{first}{until} UTC{f', {missing} of {len(records)} not recorded' if missing else ''}"


def ranked_kinds(operators: Iterable[tuple[str, float]]) -> list[tuple[str, int, float]]:
    """Return each kind of operator, how often it is there and its sum, the largest sum first; those after the first `KINDS` are added up.

    `operators` are the kind of each operator, and its time or its instructions.
    """
    amounts: dict[str, list[float]] = {}
    for kind, amount in operators:
        amounts.setdefault(kind, []).append(amount)
    ranked = sorted(((kind, len(values), sum(values)) for kind, values in amounts.items()), key=lambda item: -item[2])
    others = ranked[KINDS:]
    if not others:
        return ranked
    return [*ranked[:KINDS], (f"{len(others)} kinds more", sum(count for _, count, _ in others), sum(total for *_, total in others))]


def memory_mb(record: Record) -> float:
    """Return the peak memory of a record's process beyond what it took before loading, in MB."""
    return (record.peak_memory_bytes - record.memory_before_load_bytes) / 1e6


def _key(record: AnyRecord) -> tuple[str, str, int]:
    return record.configuration.name, record.configuration.engine, record.configuration.threads


def _check_times(record: Record) -> None:
    cold = record.cold_start
    times = (*record.step_ms, record.subclip_s, cold.first_step_ms, cold.load_s, record.pause_ms, record.processor_ms or 0)
    if not record.step_ms or not all(math.isfinite(value) and value >= 0 for value in times) or not min(*record.step_ms, record.subclip_s) > 0:
        raise ClipstepError(
            f"the record of {record.configuration.name}: its times cannot be read", expected="times above 0, at least one step", fix="measure again"
        )


def _check_profile(record: ProfileRecord) -> None:
    if not all(math.isfinite(operator.median_ms) and operator.median_ms >= 0 for operator in record.operators) or not record.total_ms > 0:
        what = f"the profile of {record.configuration.name}: its times cannot be read"
        raise ClipstepError(what, expected="times of 0 or more, one above 0", fix="measure again")


def _check_counts(record: InstructionRecord) -> None:
    if record.step.instructions <= 0:
        what = f"the record of {record.configuration.name}: its counts cannot be read"
        raise ClipstepError(what, got=record.step.instructions, expected="above 0", fix="count again")
