"""The section of sustained runs: whether a phone keeps its speed for minutes."""

from clipstep.benchmarks.records import SustainedRecord
from clipstep.benchmarks.report_page.data import Report, device_text
from clipstep.benchmarks.report_page.markup import Html, joined, number, paragraph, table
from clipstep.benchmarks.sustained import sustained_sentence


def sustained_body(report: Report) -> Html | None:
    """Return the runs with what became of their speed, or None if there was none."""
    if not report.sustained:
        return None
    headings = ("configuration", "device", "threads", "s", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "last over first minute")
    sentences = (paragraph(sustained_sentence(record), class_="finding") for record in report.sustained)
    return joined([*sentences, table("Steps without pause on a phone", headings, [_row(record) for record in report.sustained])])


def _row(record: SustainedRecord) -> list[object]:
    configuration = record.configuration
    times = (number(record.percentile_ms(percent), 2) for percent in (50, 90, 95, 99))
    what = f"{configuration.name} in {configuration.engine}"
    return [what, device_text(record), number(configuration.threads, 0), number(record.duration_s, 0), *times, number(record.last_over_first, 2)]
