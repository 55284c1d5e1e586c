"""The section of ARM64 instructions, which are counted, not timed."""

from collections.abc import Sequence
from typing import NamedTuple

from clipstep.benchmarks.arm64.processor import CPU
from clipstep.benchmarks.arm64.table import KEY, TYPES, processor_lines
from clipstep.benchmarks.records import InstructionRecord, naive_instructions, named
from clipstep.benchmarks.report_page.charts import bar
from clipstep.benchmarks.report_page.data import Report, ranked_kinds
from clipstep.benchmarks.report_page.markup import Html, element, joined, number, paragraph, table
from clipstep.runtime.wording import counted


def instructions_body(report: Report) -> Html | None:
    """Return the counts of each configuration and, where they were counted, of each kind of operator; None if nothing was counted."""
    rows = _rows(report)
    if not rows:
        return None
    longest = max(row.instructions for row in rows)
    cells = [
        [
            name,
            number(instructions / 1e6),
            bar(instructions / longest),
            number(naive / instructions if naive else None, 2),
            *(number(None if count is None else count / 1e6) for count in counts),
            number(None if needed is None else 100 * needed, 0, "%"),
            number(None if useful is None else 100 * useful, 0, "%"),
        ]
        for name, _, instructions, naive, counts, needed, useful in rows
    ]
    types = (f"{words} MACs, M" for words in TYPES.values())
    headings = ("what runs", "instructions, M", "", "times naive", "vector FMAs, M", "loads, M", "stores, M", *types, "MACs needed", "useful")
    explanation = f"Of one step with one thread. Times naive: how many times fewer than the naive export. {KEY[0].upper()}{KEY[1:]}. {_where(report)}"
    parts = [
        paragraph(_finding(rows), class_="finding"),
        table("ARM64 instructions of a step", headings, cells),
        paragraph(explanation, class_="note"),
    ]
    return joined([*parts, *(_kinds(record) for record in report.counted if record.operators)])


class Row(NamedTuple):
    """A line of the table: counts of a step on one processor."""

    name: str
    is_artifact: bool
    instructions: int
    naive: int | None
    """The instructions of the naive export on the same processor."""
    counts: tuple[int | None, ...]
    """The vector FMAs, loads, stores and the multiply-accumulates of each type."""
    needed: float | None
    useful: float | None


def _rows(report: Report) -> list[Row]:
    """Return a row for each record, then one for each artifact whose counts the manifest holds and no record does."""
    rows: list[Row] = []
    naive = naive_instructions(report.counted)
    for name, record in named(report.counted):
        step = record.step
        counts = (step.vector_fmas, step.loads, step.stores, *(getattr(step, key) for key in TYPES))
        of_artifact = record.artifact_sha256 is not None
        rows.append(Row(name, of_artifact, step.instructions, naive.get(record.cpu_model), counts, record.needed_per_mac, record.useful))
    recorded = {record.artifact_sha256 for record in report.counted}
    for artifact in report.bundle.manifest.artifacts:
        noted = artifact.arm64_step
        if noted is not None and artifact.sha256 not in recorded:
            counts = (noted.vector_fmas, noted.loads, noted.stores, *(None for _ in TYPES))
            rows.append(Row(artifact.file, True, noted.instructions, naive.get(CPU), counts, None, None))
    return rows


def _finding(rows: Sequence[Row]) -> str:
    best = min((row for row in rows if row.is_artifact), key=lambda row: row.instructions, default=rows[0])
    beside = f", {best.naive / best.instructions:.2f} times fewer than the naive export" if best.naive else ""
    return f"{best.name} takes the fewest ARM64 instructions of the artifacts: {best.instructions / 1e6:.1f} M a step{beside}"


def _where(report: Report) -> str:
    lines = processor_lines(report.counted)
    return f"Counted on {'; '.join(lines)}. Instructions are not time." if lines else "Instructions are not time."


def _kinds(record: InstructionRecord) -> Html:
    """Return a record's operators by kind, the most expensive first, and what the engine executes between them."""
    ranked = ranked_kinds((operator.kind, operator.instructions) for operator in record.operators)
    between = record.step.instructions - sum(total for *_, total in ranked)
    if between > 0:
        ranked.append(("between operators", 0, between))
    longest = max(total for *_, total in ranked)
    rows = [
        [kind, number(total / 1e6, 2), bar(total / longest), number(100 * total / record.step.instructions, 0, "%"), number(count or None, 0)]
        for kind, count, total in ranked
    ]
    name, first = record.configuration.name, ranked[0]
    share = f"{first[0]} takes {first[2] / record.step.instructions:.0%} of the instructions"
    summary = f"{name} by kind of operator: {share}, of {counted(len(record.operators), 'operator')} in all"
    headings = ("kind of operator", "instructions, M", "", "share", "how often")
    return element("details", element("summary", summary), table(f"{name} in {record.configuration.engine}, by kind of operator", headings, rows))
