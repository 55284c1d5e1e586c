"""The tables of the family ``zoo``."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.latency import EAGER
from clipstep.benchmarks.records import Record, naive_instructions, naive_ms
from clipstep.benchmarks.zoo.measure import Row
from clipstep.runtime.bundle import Bundle, BundleError
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.command_line.terminal import new_table, print_table
from clipstep.runtime.targets import TARGETS, targets_for

HERE = targets_for("python")
"""The targets that run on this computer."""
NOTHING = "-"
DELEGATING = "executorch"
"""The target whose steps are cut into delegate calls."""


def print_rows(console: Console, rows: Sequence[Row], *, arm64: bool) -> None:
    """Print all tables, then what is outside of delegates and what failed, with the reasons."""
    print_table(console, exported_table(rows))
    console.print("input: frames x pixels, or new frames / frames of the clip for a stream; GiB: peak of the export")
    console.print("size / weights: of each target's float32 file; calls: into how many delegate calls ExecuTorch's step is split")
    print_table(console, measured_table(rows))
    console.print("one thread; x: times as fast as naive, the rank-5 ONNX in onnxruntime")
    console.print("error: the largest of the float32 artifacts against PyTorch, relative; eager's: PyTorch's own against float64")
    if arm64:
        print_table(console, counted_table(rows))
        console.print("ARM64 instructions of a step, M; times naive: above 1 is fewer than rank-5 ONNX in onnxruntime")
    for line in (*_outside(rows), *_smaller(rows), *_reasons(rows)):
        console.print(line, soft_wrap=True)


def exported_table(rows: Sequence[Row]) -> Table:
    """Return the table of exports."""
    sizes = [f"{min(info.display_name, info.suffix, key=len)}\n/ w." for info in TARGETS.values()]
    table = new_table("network", "input", "param.\nM", "MAC\nM", "export\ns", "GiB", *sizes, "calls")
    for row in rows:
        e, pte = row.exported, _artifact(row, DELEGATING)
        table.add_row(
            row.entry.name,
            row.entry.input,
            NOTHING if e is None or not e.parameters else f"{e.parameters / 1e6:.2f}",
            _macs(row.bundle),
            NOTHING if e is None or not e.seconds else f"{e.seconds:.0f}",
            NOTHING if e is None or not e.peak_bytes else f"{e.peak_bytes / 2**30:.1f}",
            *(_over_weights(row, _artifact(row, target)) for target in TARGETS),
            NOTHING if pte is None else str(len(pte.placement.delegated)),
        )
    return table


def measured_table(rows: Sequence[Row]) -> Table:
    """Return the table of times and errors."""
    table = new_table("network", "naive\nms", *(f"{TARGETS[target].suffix}\nx" for target in HERE), "PyTorch\nx", "error", "eager's")
    for row in rows:
        naive = naive_ms(row.records).get(1)
        artifacts = [_artifact(row, target) for target in HERE]
        names = [None if artifact is None else artifact.file for artifact in artifacts]
        errors = [a.parity.max_relative_error for a in row.bundle.manifest.artifacts if a.precision == "float32"] if row.bundle else []
        own = row.exported.float32_error if row.exported else None
        table.add_row(
            row.entry.name,
            NOTHING if naive is None else f"{naive:.1f}",
            *(_times(row.records, name, naive) for name in (*names, EAGER)),
            f"{max(errors):.0e}" if errors else NOTHING,
            NOTHING if own is None else f"{own:.0e}",
        )
    return table


def counted_table(rows: Sequence[Row]) -> Table:
    """Return the table of ARM64 instructions, of the networks that were counted."""
    table = new_table("network", "naive\nM", *(cell for target in HERE for cell in (f"{TARGETS[target].suffix}\nM", "times\nnaive")))
    for row in rows:
        naive = next(iter(naive_instructions(row.counts).values()), None)
        counts = {record.configuration.target: record.step.instructions for record in row.counts if record.artifact_sha256 is not None}
        cells = [cell for target in HERE for cell in _count(counts.get(target), naive)]
        table.add_row(row.entry.name, NOTHING if naive is None else f"{naive / 1e6:,.1f}", *cells)
    return table


def _macs(bundle: Bundle | None) -> str:
    macs = None if bundle is None else bundle.manifest.export.multiply_accumulates
    return NOTHING if macs is None else f"{macs / 1e6:,.0f}"


def _artifact(row: Row, target: str) -> Artifact | None:
    try:
        return None if row.bundle is None else row.bundle.artifact(target)
    except BundleError:
        return None


def _over_weights(row: Row, artifact: Artifact | None) -> str:
    return NOTHING if artifact is None or row.exported is None else f"{artifact.size_bytes / row.exported.weights_bytes:.2f}"


def _times(records: Iterable[Record], name: str | None, naive: float | None) -> str:
    """Return how many times as fast as naive a configuration is, or its milliseconds if naive was not measured."""
    ms = next((record.percentile_ms(50) for record in records if record.configuration.name == name), None)
    if ms is None:
        return NOTHING
    return f"{ms:.1f} ms" if naive is None else f"{naive / ms:.2f}"


def _count(count: int | None, naive: int | None) -> tuple[str, str]:
    if count is None:
        return NOTHING, NOTHING
    return f"{count / 1e6:,.1f}", NOTHING if naive is None else f"{naive / count:.2f}"


def _outside(rows: Sequence[Row]) -> list[str]:
    """Return what is outside of ExecuTorch's delegates, once for all networks with the same."""
    outside: dict[str, list[str]] = {}
    for row in rows:
        artifact = _artifact(row, DELEGATING)
        if artifact is not None:
            operators = ", ".join(f"{one.operator} x {one.count} ({one.reason})" for one in artifact.placement.reasons)
            outside.setdefault(operators or "nothing", []).append(row.entry.name)
    return [f"outside of ExecuTorch's delegate: {operators}: {', '.join(names)}" for operators, names in outside.items()]


def _smaller(rows: Sequence[Row]) -> list[str]:
    usual = [f"{row.entry.name} {row.entry.usual}" for row in rows if row.entry.usual]
    return [f"published for a larger input: {', '.join(usual)}"] if usual else []


def _reasons(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        names: dict[str, list[str]] = {}
        for what, reason in (row.reasons or {}).items():
            names.setdefault(reason, []).append(what)
        lines += [f"{row.entry.name}: {', '.join(whats)}: {reason}" for reason, whats in names.items()]
    return lines
