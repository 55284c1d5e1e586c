"""Records as commands print and save them."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.records import Record, naive_ms, record_lines
from clipstep.runtime.command_line.terminal import new_table
from clipstep.runtime.wording import counted


def append_records(out: Path | None, records: Sequence[BaseModel], console: Console) -> None:
    """Append the records to the file ``out``, one JSON object a line; do nothing if ``out`` is None."""
    if out is None:
        return
    with out.open("ab", buffering=0) as file:  # In one write, so that lines of several processes do not mix.
        file.write(record_lines(records).encode())
    console.print(f"{counted(len(records), 'record')} appended to {out}")


def record_table(records: Sequence[Record]) -> Table:
    """Return a table with a row for each record.

    Three columns are not always there. ``cpu ms``, a step's processor time in all threads, is shown if there were pauses before the steps or
    spinning threads. The engine is shown for a phone, where several engines may run one artifact, and ``times naive`` for a computer.
    """
    processor, phone = any(r.pause_ms or r.configuration.spinning for r in records), any(r.phone for r in records)
    ratios = () if phone else ("times\nnaive",)
    names = ("what runs", "engine") if phone else ("what runs",)
    timed = ("p50\nms", "p90\nms", *(["cpu\nms"] if processor else []))
    table = new_table(*names, "threads", *timed, *ratios, "x real\ntime", "load\ns", "first\nms", "peak\n+MB", "file\nMB", texts=len(names))
    naive = naive_ms(records)
    for r in records:
        ratio = f"{naive[r.configuration.threads] / r.percentile_ms(50):.2f}" if naive and r.parts is None else "-"
        table.add_row(
            r.configuration.name,
            *([r.configuration.engine] if phone else []),
            str(r.configuration.threads),
            f"{r.percentile_ms(50):.2f}",
            f"{r.percentile_ms(90):.2f}",
            *([f"{r.processor_ms:.1f}" if r.processor_ms is not None else "-"] if processor else []),
            *([] if phone else [ratio]),
            real_time_text(r),
            f"{r.cold_start.load_s:.2f}",
            f"{r.cold_start.first_step_ms:.0f}",
            f"{(r.peak_memory_bytes - r.memory_before_load_bytes) / 1e6:.0f}",
            f"{r.file_bytes / 1e6:.1f}" if r.file_bytes else "-",
        )
    return table


def real_time_text(record: Record) -> str:
    """Return how many times faster than real time a record is, with two digits at least."""
    factor = record.real_time_factor
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"


def whole_stream_lines(records: Sequence[Record]) -> list[str]:
    """Return a line for each record of a whole stream: what part of the time decoding, resizing and the step take."""
    lines = []
    for record in records:
        if record.parts is None or record.configuration.video is None:
            continue
        parts = {"decoding": record.parts.decode_ms, "cropping and resizing": record.parts.resize_ms, "the step": record.parts.step_ms}
        shares = ", ".join(f"{name} {ms / sum(parts.values()):.0%}" for name, ms in parts.items())
        threads = counted(record.configuration.threads, "thread")
        lines.append(f"{record.configuration.name} of {Path(record.configuration.video).name}, {threads}: {shares}")
    return lines
