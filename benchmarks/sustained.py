"""Sustained runs as commands print them: whether a phone keeps its speed."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.records import SustainedRecord
from clipstep.runtime.command_line.terminal import new_table, print_table

STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's names of its thermal statuses, from 0."""


def print_sustained(console: Console, records: Sequence[SustainedRecord]) -> None:
    """Print a table and a sentence for each record; nothing if there is none."""
    if records:
        print_table(console, sustained_table(records))
    for record in records:
        console.print(sustained_sentence(record), soft_wrap=True)


def sustained_table(records: Sequence[SustainedRecord]) -> Table:
    """Return a table with a row for each record."""
    table = new_table("sustained", "engine", "threads", "s", "steps", "p50\nms", "p90\nms", "p95\nms", "p99\nms", "last over\nfirst minute", texts=2)
    for r in records:
        ratio = "-" if r.last_over_first is None else f"{r.last_over_first:.2f}"
        times = (f"{r.percentile_ms(percent):.2f}" for percent in (50, 90, 95, 99))
        steps = sum(bucket.steps for bucket in r.buckets)
        configuration = r.configuration
        table.add_row(configuration.name, configuration.engine, str(configuration.threads), f"{r.duration_s:.0f}", str(steps), *times, ratio)
    return table


def sustained_sentence(record: SustainedRecord) -> str:
    """Return how long a run was, how much slower it became, and how hot the phone was, as a sentence without a full stop."""
    ratio = record.last_over_first
    change = "too short to compare its ends" if ratio is None else f"a step takes {ratio - 1:+.0%} at the end"
    part = "" if record.complete else f", stopped before its {record.sustained_s} s"
    left = ", the app left for a part of it" if record.left_app else ""
    return f"{record.phone.model}, {record.duration_s:.0f} s without pause{part}{left}: {change}; {_statuses(record)}; {_headroom(record)}"


def _statuses(record: SustainedRecord) -> str:
    """Return the seconds of each thermal status."""
    seconds: dict[int, float] = {}
    for bucket in record.buckets:
        if bucket.thermal_status is not None:
            seconds[bucket.thermal_status] = seconds.get(bucket.thermal_status, 0) + bucket.end_s - bucket.start_s
    if not seconds:
        return "thermal status not reported"
    return "thermal status " + ", ".join(f"{_status(status)} {length:.0f} s" for status, length in sorted(seconds.items()))


def _status(status: int) -> str:
    return STATUSES[status] if status < len(STATUSES) else str(status)


def _headroom(record: SustainedRecord) -> str:
    shares = [headroom.share for headroom in record.headrooms if headroom.share is not None]
    return f"thermal headroom {max(shares):.2f} at most" if shares else "thermal headroom not reported"
