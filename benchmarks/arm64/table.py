"""Tables of ARM64 counts."""

from collections.abc import Sequence

from rich.table import Table

from clipstep.benchmarks.records import Counts, InstructionRecord, OperatorCount, naive_instructions
from clipstep.runtime.command_line.terminal import new_table

LARGEST_GROUPS = 15
KEY = "FMAs needed: how many of the FMAs executed the network's arithmetic needs; useful: the share of these in all instructions"


def instruction_table(records: Sequence[InstructionRecord]) -> Table:
    """Return a table with a row for each configuration: the counts of its step, in millions. `KEY` explains the shares."""
    table = new_table("what runs", "instr.\nM", "times\nnaive", "FMAs\nM", "loads\nM", "stores\nM", "FMAs\nneeded", "useful", "error")
    naive = naive_instructions(records)
    for r in records:
        ratio = f"{naive / r.step.instructions:.2f}" if naive else "-"
        table.add_row(
            r.configuration.name,
            _millions(r.step.instructions),
            ratio,
            *map(_millions, (r.step.vector_fmas, r.step.loads, r.step.stores)),
            _percent(r.needed_fmas_per_vector_fma),
            _percent(r.needed_fmas_per_instruction),
            f"{r.largest_error:.1e}",
        )
    return table


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
