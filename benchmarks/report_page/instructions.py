"""The section of ARM64 instructions, which are counted, not timed."""

from clipstep.benchmarks.arm64.table import KEY
from clipstep.benchmarks.records import InstructionRecord, naive_instructions
from clipstep.benchmarks.report_page.charts import bar
from clipstep.benchmarks.report_page.data import Report, ranked_kinds
from clipstep.benchmarks.report_page.markup import Html, element, joined, number, paragraph, table
from clipstep.runtime.wording import counted


def instructions_body(report: Report) -> Html | None:
    """Return the counts of each configuration and, where they were counted, of each kind of operator; None if nothing was counted."""
    rows, naive = _rows(report), naive_instructions(report.counted)
    if not rows:
        return None
    longest = max(row[1] for row in rows)
    cells = [
        [
            name,
            number(instructions / 1e6),
            bar(instructions / longest),
            number(naive / instructions if naive else None, 2),
            *(number(count / 1e6) for count in counts),
            number(None if needed is None else 100 * needed, 0, "%"),
            number(None if useful is None else 100 * useful, 0, "%"),
        ]
        for name, instructions, counts, needed, useful in rows
    ]
    headings = ("what runs", "instructions, M", "", "times naive", "vector FMAs, M", "loads, M", "stores, M", "FMAs needed", "useful")
    explanation = f"Of one step with one thread. Times naive: how many times fewer than the naive export. {KEY[0].upper()}{KEY[1:]}. {_where(report)}"
    parts = [
        paragraph(_finding(report, naive), class_="finding"),
        table("ARM64 instructions of a step", headings, cells),
        paragraph(explanation, class_="note"),
    ]
    return joined([*parts, *(_kinds(record) for record in report.counted if record.operators)])


Row = tuple[str, int, tuple[int, int, int], float | None, float | None]
"""A name, the instructions, the vector FMAs, loads and stores, how many FMAs are needed of those executed, and of all instructions."""


def _rows(report: Report) -> list[Row]:
    """Return a row for each record, then one for each artifact whose counts the manifest holds and no record does."""
    rows: list[Row] = []
    for record in report.counted:
        step = record.step
        counts = (step.vector_fmas, step.loads, step.stores)
        rows.append((record.configuration.name, step.instructions, counts, record.needed_fmas_per_vector_fma, record.needed_fmas_per_instruction))
    recorded = {record.artifact_sha256 for record in report.counted}
    for artifact in report.bundle.manifest.artifacts:
        noted = artifact.arm64_step
        if noted is not None and artifact.sha256 not in recorded:
            rows.append((artifact.file, noted.instructions, (noted.vector_fmas, noted.loads, noted.stores), None, None))
    return rows


def _finding(report: Report, naive: int | None) -> str:
    files = {artifact.file for artifact in report.bundle.manifest.artifacts}
    name, instructions, *_ = min((row for row in _rows(report) if row[0] in files), key=lambda row: row[1], default=_rows(report)[0])
    beside = f", {naive / instructions:.2f} times fewer than the naive export" if naive else ""
    return f"{name} takes the fewest ARM64 instructions of the artifacts: {instructions / 1e6:.1f} M a step{beside}"


def _where(report: Report) -> str:
    emulators = dict.fromkeys(f"{record.cpu_model} in {record.emulator}" for record in report.counted)
    return f"Counted on {', '.join(emulators)}; instructions are not time." if emulators else "Instructions are not time."


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
