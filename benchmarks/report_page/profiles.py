"""The section of profiles: what kinds of operators a step's time goes to."""

from clipstep.benchmarks.records import ProfileRecord
from clipstep.benchmarks.report_page.charts import bar
from clipstep.benchmarks.report_page.data import Report, device_text, ranked_kinds
from clipstep.benchmarks.report_page.markup import Html, element, joined, number, paragraph, table
from clipstep.runtime.wording import counted


def profiles_body(report: Report) -> Html | None:
    """Return the kinds of operators of each artifact that was profiled, or None if none was."""
    if not report.profiled:
        return None
    explanation = (
        "By the engines' own profilers, in a run of its own: the sum of the operators is not the time of a step, which is measured without them. "
        "XNNPACK's times are whole microseconds, rounded down."
    )
    return joined([*(_kinds(record) for record in report.profiled), paragraph(explanation, class_="note")])


def longest_kind(record: ProfileRecord) -> str:
    """Return which kind of operator takes most of the time, as a sentence without a full stop."""
    kind, most = max(record.by_kind().items(), key=lambda item: item[1])
    threads = counted(record.configuration.threads, "thread")
    return f"{record.configuration.name} in {record.configuration.engine}, {threads}: {most / record.total_ms:.0%} of the operators' time in {kind}"


def _kinds(record: ProfileRecord) -> Html:
    """Return a record's operators by kind, the slowest first."""
    ranked = ranked_kinds((operator.kind, operator.median_ms) for operator in record.operators)
    longest = max(total for *_, total in ranked)
    rows = [
        [kind, number(total, 2), bar(total / longest), number(100 * total / record.total_ms, 0, "%"), number(count, 0)]
        for kind, count, total in ranked
    ]
    caption = f"{record.configuration.name} in {record.configuration.engine}: time by kind of operator on {device_text(record)}"
    medians = paragraph(f"Medians of {counted(record.profiled_steps, 'step')}; {len(record.operators):,} operators.", class_="note")
    whole = table(caption, ("kind of operator", "ms", "", "share", "how often"), rows)
    return element("figure", paragraph(longest_kind(record), class_="finding"), whole, medians)
