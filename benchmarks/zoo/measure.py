"""Exports and measures one network of the family ``zoo``. What exists in the folder of results is reused; what fails becomes a reason."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from clipstep.benchmarks.arm64.measure import count_bundle
from clipstep.benchmarks.latency import EAGER, NAIVE, as_trained, configurations_of, measure_configurations, write_naive
from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.records import InstructionRecord, Record, record_lines
from clipstep.benchmarks.report import read_records
from clipstep.benchmarks.zoo.entries import Entry, lacking
from clipstep.benchmarks.zoo.export_worker import Task
from clipstep.benchmarks.zoo.outcome import Exported, NotMeasured
from clipstep.export.explained import explained
from clipstep.export.network_source import NetworkSource
from clipstep.runtime.bundle import MANIFEST, Bundle
from clipstep.runtime.errors import ClipstepError

NETWORK, ARM64 = "network", "ARM64"
"""Names under which reasons are kept that concern no single target or configuration."""


@dataclass(frozen=True)
class Row:
    """What is known of one network."""

    entry: Entry
    exported: Exported | None
    """None if it could not be tried."""
    bundle: Bundle | None
    """None if no target was written."""
    records: tuple[Record, ...] = ()
    counts: tuple[InstructionRecord, ...] = ()
    """Counts of ARM64 instructions; empty unless they were asked for."""
    reasons: Mapping[str, str] | None = None
    """Why targets were not written or configurations not measured, by their names."""


def row_of(entry: Entry, video: Path, out: Path, options: BenchOptions, console: Console, *, arm64: bool) -> Row:
    """Return what the folder ``out`` holds of a network, after doing what is not there yet.

    Raises:
        ClipstepError: the folder holds results of the network with another input.
    """
    kept = out / f"{entry.name}.export.json"
    if not kept.exists():
        absent = lacking(entry)
        if absent is not None:
            return Row(entry, None, None, reasons={NETWORK: absent})
        console.print(f"exporting {entry.name}")
        _write(kept, export_apart(entry, video, out).model_dump_json())
    exported = Exported.model_validate_json(kept.read_text(encoding="utf-8"))
    if exported.input != entry.input:
        raise ClipstepError(f"{kept}: is of another input", got=exported.input, expected=entry.input, fix="choose another --out")
    folder = out / f"{entry.name}.clipstep"
    if not (folder / MANIFEST).exists():
        return Row(entry, exported, None, reasons=exported.failed)
    bundle, network = Bundle.open(folder), NetworkSource(model=entry.factory, weights=str(_weights(entry, out)))
    records, not_measured = _kept(
        out / f"{entry.name}.jsonl", lambda reasons: _measured(bundle, network, options, console, reasons), f"measuring {entry.name}", console
    )
    rows = read_records(records)[0]
    counts, not_counted = list[InstructionRecord](), dict[str, str]()
    if arm64:
        file, not_counted = _kept(
            out / f"{entry.name}.arm64.jsonl", lambda reasons: _counted(bundle, network, console, reasons), f"counting {entry.name}", console
        )
        counts = read_records(file)[1]
    return Row(entry, exported, bundle, tuple(rows), tuple(counts), exported.failed | not_measured | not_counted)


def _weights(entry: Entry, out: Path) -> Path:
    return out / f"{entry.name}.pt"


def export_apart(entry: Entry, video: Path, out: Path) -> Exported:
    """Export a network in a process of its own, with golden steps of a video, to the folder ``out``; whatever ends the process is a reason."""
    task = Task(entry=entry, video=video, weights=_weights(entry, out), bundle=out / f"{entry.name}.clipstep")
    command = [sys.executable, "-P", "-m", "clipstep.benchmarks.zoo.export_worker"]
    done = subprocess.run(command, input=task.model_dump_json(), capture_output=True, text=True)
    with suppress(ValueError):
        return Exported.model_validate_json(done.stdout)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
    reason = last if done.returncode >= 0 else f"signal {-done.returncode} ended the export, as it does for want of memory"
    return Exported(input=entry.input, seconds=0, peak_bytes=0, failed={NETWORK: reason})


def _kept(
    file: Path, measure: Callable[[dict[str, str]], list[Record] | list[InstructionRecord]], message: str, console: Console
) -> tuple[Path, dict[str, str]]:
    """Return the file of records, and the reasons beside it, after measuring if they are not there."""
    beside = file.with_suffix(".reasons.json")
    if not file.exists():
        console.print(message)
        reasons: dict[str, str] = {}
        records = measure(reasons)
        _write(beside, NotMeasured(reasons=reasons).model_dump_json())
        _write(file, record_lines(records))
    return file, NotMeasured.model_validate_json(beside.read_text(encoding="utf-8")).reasons


def _measured(bundle: Bundle, network: NetworkSource, options: BenchOptions, console: Console, reasons: dict[str, str]) -> list[Record]:
    with tempfile.TemporaryDirectory(prefix="clipstep-bench-") as temporary:
        naive: Path | None = None
        try:
            with explained("the naive rank-5 ONNX cannot be written", "the artifacts are measured without it"):
                naive = write_naive(bundle, network, Path(temporary) / "naive.onnx", console)
        except ClipstepError as error:
            reasons[NAIVE] = str(error)
        configurations = configurations_of(bundle, naive, 1)
        if naive is None:
            configurations.insert(0, as_trained(EAGER, "pytorch", "pytorch", 1))
        return measure_configurations(configurations, bundle, network, options, console, reasons)


def _counted(bundle: Bundle, network: NetworkSource, console: Console, reasons: dict[str, str]) -> list[InstructionRecord]:
    for source in (network, None):  # The naive ONNX may fail where the artifacts do not.
        try:
            return count_bundle(bundle, source, console, steps=1)
        except ClipstepError as error:
            reasons[ARM64] = str(error)
    return []


def _write(path: Path, text: str) -> None:
    """Write a file whole: its existence says that this part is done."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
