"""A comparison as a table for the terminal, as CSV, Markdown and JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from clipstep.benchmarks.comparison.result import ComparedConfiguration, Comparison
from clipstep.runtime.command_line.terminal import new_table

COLUMNS = ("configuration", "unit", "a", "b", "ratio", "low", "high", "verdict", "limit", "above_limit")
"""The columns of CSV and Markdown."""
ONLY_IN = ("only in A", "only in B")


def comparison_table(comparison: Comparison) -> Table:
    """Return the table for a terminal; times are in milliseconds, and instructions in millions."""
    limited = any(row.limit is not None for row in comparison.configurations)
    table = new_table("what runs", "A", "B", "B/A", "interval", *(["limit"] if limited else []), "verdict")
    for row in comparison.configurations:
        limit = [] if not limited else ["-" if row.limit is None else f"{row.limit:g}{' !' if row.exceeds_limit else ''}"]
        interval = "exact" if row.unit == "instructions" else "-" if row.interval is None else f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
        table.add_row(row.name, _shown(row.a, row.unit), _shown(row.b, row.unit), f"{row.ratio:.3f}", interval, *limit, row.verdict)
    return table


def csv_text(comparison: Comparison) -> str:
    """Return CSV with a row for each configuration, those that only one file holds included."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *_rows(comparison)])
    return text.getvalue()


def markdown_text(comparison: Comparison) -> str:
    """Return a Markdown table of the rows of `csv_text`, with the method and the notes as a list below."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *_rows(comparison)]
    table = "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)
    notes = (f"A: {comparison.a}", f"B: {comparison.b}", comparison.method, *comparison.notes)
    return f"{table}\n" + "".join(f"- {_escaped(note)}\n" for note in notes)


def json_values(comparison: Comparison) -> dict[str, object]:
    """Return the comparison as values for JSON."""
    rows = [{**asdict(row), "exceeds_limit": row.exceeds_limit} for row in comparison.configurations]
    return {**asdict(comparison), "configurations": rows}


def _rows(comparison: Comparison) -> list[Sequence[str]]:
    alone = [(name, where) for names, where in zip((comparison.only_in_a, comparison.only_in_b), ONLY_IN, strict=True) for name in names]
    return [*map(_row, comparison.configurations), *((name, "", "", "", "", "", "", where, "", "") for name, where in alone)]


def _row(row: ComparedConfiguration) -> Sequence[str]:
    low, high = ("", "") if row.interval is None else (f"{value:.4f}" for value in row.interval)
    limit, above = ("", "") if row.limit is None else (f"{row.limit:g}", "yes" if row.exceeds_limit else "no")
    numbers = (f"{value:.0f}" if row.unit == "instructions" else f"{value:.4f}" for value in (row.a, row.b))
    return (row.name, row.unit, *numbers, f"{row.ratio:.4f}", low, high, row.verdict, limit, above)


def _shown(value: float, unit: str) -> str:
    if unit == "instructions":
        return f"{value / 1e6:.1f} M"
    return f"{value:.2f} ms" if unit == "ms" else f"{value:.3f}"


def _escaped(cell: str) -> str:
    """Return text for a cell of a Markdown table: one line, in which no bar ends the cell."""
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")
