"""``clipstep bench``."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from clipstep.benchmarks.bench import Plan, bench_bundle
from clipstep.benchmarks.phone import WithPhone
from clipstep.benchmarks.records import Record, naive_ms
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engines import check_threads
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.terminal import new_console


@click.command("bench", cls=WithPhone)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="The run behind the bundle. [default: the folder that the manifest names]")
@click.option("--no-reference", is_flag=True, help="Measure the artifacts alone, without PyTorch and naive ONNX.")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="May be given several times. [default: 1 and 2]")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--steps", default=5, show_default=True, type=click.IntRange(1), help="Steps a turn.")
@click.option("--out", type=click.Path(path_type=Path), help="Append the records to this file, one JSON object a line.")
def bench_command(bundle: Path, run: Path | None, no_reference: bool, threads: tuple[int, ...], rounds: int, steps: int, out: Path | None) -> None:
    """Measure BUNDLE's artifacts on this computer, beside PyTorch eager and the naive rank-5 ONNX of the same network."""
    threads = tuple(dict.fromkeys(threads or (1, min(2, os.cpu_count() or 1))))
    check_threads(max(threads))
    if out is not None and not out.parent.is_dir():
        raise ClipstepError(f"{out}: no such folder", fix="make it first")
    opened = Bundle.open(bundle)
    console = new_console()
    records = bench_bundle(opened, None if no_reference else _run_folder(opened, run), Plan(threads, rounds, steps), console)
    device, steps = records[0].device, len(records[0].step_ms)
    console.print(f"{records[0].bundle} on {device.cpu_model}, {device.cores} cores; {steps} steps each, taking turns", soft_wrap=True)
    console.print(_table(records))
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.writelines(record.model_dump_json() + "\n" for record in records)
        console.print(f"{len(records)} records appended to {out}")


def _run_folder(bundle: Bundle, run: Path | None) -> Path:
    from clipstep.training.run import load_run

    folder = run or Path(bundle.manifest.provenance.run)
    if run is None and not folder.is_dir():
        raise ClipstepError(f"{folder}: the run behind the bundle is not there", fix="give --run RUN, or --no-reference")
    if load_run(folder).info.checkpoint_sha256 != bundle.manifest.provenance.checkpoint_sha256:
        raise ClipstepError(f"{folder}: is not the run that the bundle was exported from", fix="give --run RUN, or --no-reference")
    return folder


def _table(records: Sequence[Record]) -> Table:
    table = Table()
    for heading in ("what runs", "threads", "p50 ms", "p90 ms", "times naive", "x real time", "load s", "first ms", "peak +MB", "file MB"):
        table.add_column(heading, justify="left" if heading == "what runs" else "right")
    naive = naive_ms(records)
    for r in records:
        ratio = f"{naive[r.subject.threads] / r.percentile_ms(50):.2f}" if naive else "-"
        table.add_row(
            r.subject.name, str(r.subject.threads), f"{r.percentile_ms(50):.2f}", f"{r.percentile_ms(90):.2f}", ratio,
            f"{r.real_time_factor:.0f}", f"{r.start.load_s:.2f}", f"{r.start.first_step_ms:.0f}",
            f"{(r.peak_memory_bytes - r.memory_before_load_bytes) / 1e6:.0f}", f"{r.file_bytes / 1e6:.1f}" if r.file_bytes else "-",
        )  # fmt: skip
    return table
