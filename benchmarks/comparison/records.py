"""Which records of two files belong together, and what differs between them beside the measurements."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clipstep.benchmarks.comparison.statistics import Array, Run
from clipstep.benchmarks.records import InstructionRecord, Record
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed

AnyRecord = TypeVar("AnyRecord", Record, InstructionRecord)
Facet = Callable[[Record | InstructionRecord], str]
"""A fact about a record, as text."""


@dataclass(frozen=True)
class Source:
    """A file of records, or records in memory."""

    name: str
    timed: Sequence[Record]
    counted: Sequence[InstructionRecord]


def pair(
    a: Sequence[AnyRecord], b: Sequence[AnyRecord]
) -> tuple[dict[str, tuple[list[AnyRecord], list[AnyRecord]]], dict[str, list[AnyRecord]], dict[str, list[AnyRecord]]]:
    """Return, by the name of the configuration, the records of those that both have, that only `a` has, and that only `b` has.

    The bundle, the device and the pause are part of a name only if one file alone holds records of several.
    """
    told_apart = [facet for facet in (_bundle, _device, _pause) if any(len(set(map(facet, records))) > 1 for records in (a, b))]
    of_a, of_b = _by_name(a, told_apart), _by_name(b, told_apart)
    both = {name: (records, of_b[name]) for name, records in of_a.items() if name in of_b}
    return both, {n: r for n, r in of_a.items() if n not in both}, {n: r for n, r in of_b.items() if n not in both}


def check_one_artifact(name: str, records: Sequence[Record | InstructionRecord], source: str) -> None:
    """Refuse records of several versions of an artifact or a network under one name: they are no runs of the same thing.

    Raises:
        ClipstepError: the file holds such records.
    """
    versions = {record.artifact_sha256 or record.weights_sha256 for record in records}
    if len(versions) > 1:
        got = f"{len(versions)} versions of it, by their hashes"
        raise ClipstepError(f"{source}: {name}: holds records of different artifacts", got=got, fix="measure each into a file of its own")


def runs_of(name: str, records: Sequence[Record], source: Source, relative_to: str | None) -> list[Run]:
    """Return the step times of a configuration's records by turns; with `relative_to`, those of that configuration in the same turns, too.

    Raises:
        ClipstepError: the times are not positive numbers, or no whole number of turns; the other configuration was not measured beside it.
    """
    runs = []
    for record in records:
        turns = _turns(name, record, source.name)
        reference = None if relative_to is None else _turns(relative_to, _beside(record, relative_to, source), source.name)
        if reference is not None and reference.shape != turns.shape:
            raise ClipstepError(
                f"{source.name}: {relative_to} took other turns than {name}", got=counted(reference.size, "step"), expected=str(turns.size)
            )
        runs.append(Run(turns, reference))
    return runs


def differences(a: Sequence[Record | InstructionRecord], b: Sequence[Record | InstructionRecord]) -> list[str]:
    """Return what differs between records that are compared, beside their measurements, such as `bundle: a.clipstep in A, b.clipstep in B`."""
    found = []
    for what, value in _FACTS.items():
        one, other = (", ".join(sorted(dict.fromkeys(map(value, records)))) for records in (a, b))
        if one != other:
            found.append(f"{what}: {one or 'unknown'} in A, {other or 'unknown'} in B")
    if not any(each.startswith("bundle:") for each in found) and {r.manifest_sha256 for r in a} != {r.manifest_sha256 for r in b}:
        same = {r.artifact_sha256 or r.weights_sha256 for r in a} == {r.artifact_sha256 or r.weights_sha256 for r in b}
        found.append(f"another bundle of the same name, {'with the same' if same else 'with another'} artifact")
    return found


def is_the_same_program(a: Sequence[Record], b: Sequence[Record]) -> bool:
    """Whether records are of one and the same file, or network, on the same device, with the same versions."""
    one, other = (
        {(r.artifact_sha256 or r.weights_sha256, str(r.device), str(sorted(r.tool_versions.items()))) for r in records} for records in (a, b)
    )
    return one == other and all(sha for sha, *_ in one)


def _by_name(records: Iterable[AnyRecord], told_apart: Sequence[Facet]) -> dict[str, list[AnyRecord]]:
    groups: dict[str, list[AnyRecord]] = {}
    for record in records:
        groups.setdefault(_name(record, told_apart), []).append(record)
    return groups


def _name(record: Record | InstructionRecord, told_apart: Sequence[Facet]) -> str:
    how = f"{record.arch} instructions" if isinstance(record, InstructionRecord) else counted(record.configuration.threads, "thread")
    parts = (record.configuration.name, record.configuration.engine, how, *(facet(record) for facet in told_apart))
    return ", ".join(part for part in parts if part)


def _turns(name: str, record: Record, source: str) -> Array:
    times = np.array(record.step_ms, np.float64)
    if not times.size or not (np.isfinite(times) & (times > 0)).all():
        raise ClipstepError(f"{source}: {name}: its step times are no measurement", got="none" if not times.size else "values that are not above 0")
    if record.turn_steps is None or times.size % record.turn_steps:
        turns = "turns of unknown length" if record.turn_steps is None else f"no whole number of turns of {counted(record.turn_steps, 'step')}"
        raise ClipstepError(f"{source}: {name}: {turns}", got=counted(times.size, "step"), fix="measure again with this version")
    return times.reshape(-1, record.turn_steps)


def _beside(record: Record, relative_to: str, source: Source) -> Record:
    """Return the record of the configuration `relative_to` that was measured beside `record`: the two are in one run of `clipstep bench`.

    The n-th records of both are of the n-th run.
    """

    beside = [other for other in source.timed if _circumstances(other) == _circumstances(record)]
    references = [other for other in beside if other.configuration.name == relative_to]
    own = [other for other in beside if _what_runs(other) == _what_runs(record)]
    if len(references) != len(own):
        names = listed(sorted({other.configuration.name for other in source.timed}))
        got = f"{counted(len(references), 'record')} of it, {len(own)} of {record.configuration.name}"
        raise ClipstepError(
            f"{source.name}: {relative_to} was not measured beside {record.configuration.name}", got=got, expected=f"one for each; it holds {names}"
        )
    return references[next(index for index, other in enumerate(own) if other is record)]


def _circumstances(record: Record) -> tuple[object, ...]:
    return record.bundle, record.device, record.phone and record.phone.model, record.pause_ms, record.configuration.threads


def _what_runs(record: Record) -> tuple[str, str]:
    return record.configuration.name, record.configuration.engine


def _bundle(record: Record | InstructionRecord) -> str:
    return record.bundle


def _device(record: Record | InstructionRecord) -> str:
    if isinstance(record, InstructionRecord):
        return f"{record.cpu_model} in {record.emulator}"
    device, phone = record.device, record.phone
    where = f"{phone.model}, {phone.build_fingerprint}, " if phone else ""
    return f"{where}{device.cpu_model}, {counted(device.cores, 'core')}, {device.os}, {device.machine}"


def _pause(record: Record | InstructionRecord) -> str:
    return f"pauses of {record.pause_ms:g} ms" if isinstance(record, Record) and record.pause_ms else ""


def _versions(record: Record | InstructionRecord) -> str:
    return " ".join(f"{tool} {version}" for tool, version in sorted(record.tool_versions.items()))


_FACTS: dict[str, Facet] = {
    "device": _device,
    "bundle": _bundle,
    "weights": lambda record: (record.weights_sha256 or "")[:12],
    "form": lambda record: record.configuration.form,
    "precision": lambda record: record.configuration.precision,
    "versions": _versions,
    "pause before each step": lambda record: f"{record.pause_ms:g} ms" if isinstance(record, Record) else "none",
}
"""What is compared, and noted if it differs, beside the measurements."""
