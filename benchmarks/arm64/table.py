"""Tables of ARM64 counts."""

from collections.abc import Sequence

from rich.table import Table

from clipstep.benchmarks.arm64.processor import level_of
from clipstep.benchmarks.records import Counts, InstructionRecord, OperatorCount, naive_instructions, named
from clipstep.runtime.command_line.terminal import new_table

LARGEST_GROUPS = 15
TYPES = {"float32_macs": "f32", "float16_macs": "f16", "integer_macs": "int"}
"""The counts of multiply-accumulates, and what is multiplied."""
KEY = (
    "MACs: multiply-accumulates executed, in float32, in float16 and of integers of 8 or 16 bits; needed: how many of them the network's "
    "arithmetic needs; useful: the vector FMAs for these, as a share of all instructions"
)


def instruction_table(records: Sequence[InstructionRecord]) -> Table:
    """Return a table with a row for each configuration: the counts of its step, in millions. `KEY` explains the shares.

    Of the types of multiply-accumulates, those that no step executes are left out.
    """
    types = {key: f"{words}\nMACs\nM" for key, words in TYPES.items() if any(getattr(r.step, key) for r in records)}
    table = new_table("what runs", "instr.\nM", "times\nnaive", *types.values(), "loads\nM", "stores\nM", "MACs\nneeded", "useful", "error")
    naive = naive_instructions(records)
    for name, r in named(records):
        table.add_row(
            name,
            _millions(r.step.instructions),
            f"{naive[r.cpu_model] / r.step.instructions:.2f}" if r.cpu_model in naive else "-",
            *(_millions(getattr(r.step, key)) for key in (*types, "loads", "stores")),
            _percent(r.needed_per_mac),
            _percent(r.useful),
            f"{r.largest_error:.1e}",
        )
    return table


def processor_lines(records: Sequence[InstructionRecord]) -> list[str]:
    """Return a line for each processor on which something was counted: what it can do, as the emulated process saw it."""
    lines = []
    for model, (features, emulator) in {r.cpu_model: (r.cpu_features, r.emulator) for r in records}.items():
        lines.append(f"{model} in {emulator}: {'unknown features' if features is None else level_of(features)}")
    unknown = [name for name, r in named(records) if r.step.scalable]
    if unknown:
        lines.append(f"{', '.join(unknown)}: instructions of SVE or SME ran, whose multiply-accumulates, loads and stores are not counted")
    return lines


def operator_table(record: InstructionRecord) -> Table:
    """Return a table of a step's operators, those of one kind and output shape together, the most expensive first."""
    groups = _groups(record.operators)
    between = _positive(record.step - sum(map(_counts, record.operators), Counts.zero()))
    rows = [(kind, shape, len(members), total) for (kind, shape), (members, total) in groups[:LARGEST_GROUPS]]
    others = groups[LARGEST_GROUPS:]
    if others:
        rest = sum((total for _, (_, total) in others), Counts.zero())
        rows.append((f"{len(others)} kinds more", "", sum(len(members) for _, (members, _) in others), rest))
    headings = ("count", "instr.\nM", "share", "FMAs\nM", "per\nFMA", "loads\nM", "stores\nM")
    table = new_table("operator", "output", *headings, texts=2, title=f"{record.configuration.name} in {record.configuration.engine}, by operator")
    for kind, shape, count, total in (*rows, ("between operators", "", 0, between)):
        per_fma = f"{total.instructions / total.vector_fmas:.2f}" if total.vector_fmas else "-"
        table.add_row(
            kind,
            shape,
            str(count) if count else "-",
            _millions(total.instructions),
            _percent(total.instructions / record.step.instructions),
            _millions(total.vector_fmas),
            per_fma,
            _millions(total.loads),
            _millions(total.stores),
        )
    return table


def _groups(operators: Sequence[OperatorCount]) -> list[tuple[tuple[str, str], tuple[list[OperatorCount], Counts]]]:
    members: dict[tuple[str, str], list[OperatorCount]] = {}
    for operator in operators:
        shape = "x".join(map(str, operator.output_shape or ()))
        members.setdefault((operator.kind, shape), []).append(operator)
    totals = {key: (group, sum(map(_counts, group), Counts.zero())) for key, group in members.items()}
    return sorted(totals.items(), key=lambda item: -item[1][1].instructions)


def _counts(operator: OperatorCount) -> Counts:
    return Counts(**operator.model_dump(include=set(Counts.model_fields)))


def _positive(counts: Counts) -> Counts:
    return Counts(**{key: max(0, value) for key, value in counts.model_dump().items()})


def _millions(value: int) -> str:
    return f"{value / 1e6:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
