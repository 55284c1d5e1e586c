"""``clipstep bench-models``: export every network that can be trained to all targets and measure it, in one table; or those of the zoo."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from torch import nn

from clipstep.benchmarks.arm64.measure import count_bundle
from clipstep.benchmarks.latency import EAGER, bench_bundle
from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.records import InstructionRecord, Record, naive_ms, record_lines
from clipstep.benchmarks.report import read_records
from clipstep.benchmarks.rounding import float32_error
from clipstep.benchmarks.zoo.command import bench_zoo
from clipstep.benchmarks.zoo.entries import ENTRIES
from clipstep.export.network_source import NetworkSource
from clipstep.export.step import program_of
from clipstep.network.count import clip_macs, count_parameters
from clipstep.network.preprocess import RGB
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.targets import TARGETS, targets_for
from clipstep.training.data.lists import DataSet, read_data_set
from clipstep.training.models import ARCHITECTURES, build
from clipstep.training.predict import video_logits
from clipstep.training.probe import check_trainable, sample_subclips
from clipstep.training.run import Run, RunInfo, load_run, save_run

ZOO = "zoo"
HERE = targets_for("python")
"""The targets that run on this computer."""


class ExportCost(BaseModel):
    """The time and memory of an export in a process of its own, and the float32 rounding error of the network itself."""

    seconds: float
    peak_bytes: int
    float32_error: float
    """The largest error of eager float32 against float64; see `float32_error`."""


@dataclass(frozen=True)
class Measured:
    """One network: its run, the cost of its export, its bundle, and the measurements."""

    run: Run
    export: ExportCost
    bundle: Bundle
    records: Sequence[Record]
    counts: Sequence[InstructionRecord]
    """Counts of ARM64 instructions; empty unless they were asked for."""


def bench_models_command(
    data: Path, layout: str, out: Path, family: str, names: tuple[str, ...], frames: int, size: int, arm64: bool, rounds: int, steps: int
) -> None:
    """``clipstep bench-models``, whose options are in cli.py."""
    known = ENTRIES if family == ZOO else ARCHITECTURES
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ClipstepError(f"--family {family} has no such network", got=", ".join(unknown), expected=f"some of {', '.join(known)}")
    click.get_current_context().with_resource(write_lock(out))
    data_set, console = read_data_set(data, layout=layout, allow_leakage=True), new_console()
    options = BenchOptions((1,), rounds, steps)
    if family == ZOO:
        bench_zoo(data_set, out, names or tuple(ENTRIES), options, arm64=arm64)
        return
    every = {name: _measure(name, data_set, frames, size, out, options, console, arm64=arm64) for name in names or ARCHITECTURES}
    print_table(console, _exported(every))
    console.print("GiB: peak of the export; delegates: into how many the network is split (the most of any artifact)")
    print_table(console, _measured(every))
    console.print("one thread; x: times as fast as naive, the rank-5 ONNX in onnxruntime")
    console.print("error: the largest of the float32 artifacts against PyTorch, relative; eager's: PyTorch's own against float64")
    if arm64:
        print_table(console, _counted(every))
        console.print("ARM64 instructions of a step, M; times naive: above 1 is fewer than rank-5 ONNX in onnxruntime")


def _measure(name: str, data: DataSet, frames: int, size: int, out: Path, options: BenchOptions, console: Console, *, arm64: bool) -> Measured:
    folder, bundle, took, records = out / name, out / f"{name}.clipstep", out / f"{name}.export.json", out / f"{name}.jsonl"
    counts = out / f"{name}.arm64.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        save_run(folder, random_run(name, data, frames, size))
    run = load_run(folder)
    if run.info.shape[:2] != (frames, size):
        raise ClipstepError(f"{folder}: is of another size", got=run.info.shape[:2], expected=(frames, size), fix="choose another --out")
    if not took.exists():
        console.print(f"exporting {name}")
        took.write_text(_export(folder, bundle, run).model_dump_json())
    if not records.exists():
        console.print(f"measuring {name}")
        measured = bench_bundle(Bundle.open(bundle), NetworkSource(str(folder)), options, console)
        records.write_text(record_lines(measured), encoding="utf-8")
    if arm64 and not counts.exists():
        console.print(f"counting {name}")
        counted = count_bundle(Bundle.open(bundle), NetworkSource(str(folder)), console, steps=1)
        counts.write_text(record_lines(counted), encoding="utf-8")
    seen = read_records(counts)[1] if arm64 else []
    return Measured(run, ExportCost.model_validate_json(took.read_text()), Bundle.open(bundle), read_records(records)[0], seen)


@torch.no_grad()
def random_run(name: str, data: DataSet, frames: int, size: int) -> Run:
    """Return a network with random weights that can be measured like a trained one.

    Its batch norms get the statistics of real subclips, so that activations have a realistic size. The bias of the last layer favours one class
    clearly, so that float16 rounding does not change the top class.
    """
    config = {"classes": len(data.labels), "frames": frames, "size": size}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = build(name, config)
    sample = sample_subclips(data.test, frames, size)
    check_trainable(network, frames, size, RGB)
    pixels = sample.float().flatten(0, 3)
    info = RunInfo(name, config, data.labels, tuple(pixels.mean(0).tolist()), tuple(pixels.std(0).tolist()), 25.0, weights_source="random")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None  # Running statistics are then plain means over all batches.
    video_logits(network.train(), sample, info)
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    last.bias.copy_(torch.linspace(1, -1, len(data.labels)))
    return Run(network.eval(), info, sample)


def _export(folder: Path, bundle: Path, run: Run) -> ExportCost:
    started = time.monotonic()
    command = [
        sys.executable,
        "-P",
        "-c",
        "from clipstep.runtime.command_line.cli import main; main()",
        "export",
        str(folder),
        "--out",
        str(bundle),
        "--force",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        error = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ClipstepError(f"exporting {folder} failed", got=(error.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: "))
    return ExportCost(
        seconds=time.monotonic() - started, peak_bytes=usage.ru_maxrss * 1024, float32_error=float32_error(program_of(run.spec()), run.sample)
    )


def _exported(every: dict[str, Measured]) -> Table:
    sizes = [f"{min(info.display_name, info.suffix, key=len)}\nMB" for info in TARGETS.values()]  # The shorter name, to fit 80 columns.
    table = new_table("network", "param.\nM", "MAC\nM", "export\ns", "GiB", *sizes, "dele-\ngates")
    for name, m in every.items():
        artifacts = [m.bundle.artifact(target) for target in TARGETS]
        table.add_row(
            name,
            f"{count_parameters(m.run.network) / 1e6:.2f}",
            f"{clip_macs(m.run.network, *_input_shape(m.run)) / 1e6:,.0f}",
            f"{m.export.seconds:.0f}",
            f"{m.export.peak_bytes / 2**30:.1f}",
            *(f"{artifact.size_bytes / 1e6:.1f}" for artifact in artifacts),
            str(max(len(artifact.placement.delegated) for artifact in artifacts)),
        )
    return table


def _measured(every: dict[str, Measured]) -> Table:
    table = new_table("network", "naive\nms", *(f"{TARGETS[target].suffix}\nx" for target in HERE), "PyTorch\nx", "error", "eager's")
    for name, m in every.items():
        (naive,) = naive_ms(m.records).values()
        times = {record.configuration.name: f"{naive / record.percentile_ms(50):.2f}" for record in m.records}
        error = max(item.parity.max_relative_error for item in m.bundle.manifest.artifacts if item.precision == "float32")
        ratios = (times[what] for what in (*(m.bundle.artifact(target).file for target in HERE), EAGER))
        table.add_row(name, f"{naive:.1f}", *ratios, f"{error:.0e}", f"{m.export.float32_error:.0e}")
    return table


def _counted(every: dict[str, Measured]) -> Table:
    table = new_table("network", "naive\nM", *(cell for target in HERE for cell in (f"{TARGETS[target].suffix}\nM", "times\nnaive")))
    for name, m in every.items():
        naive, *ours = (record.step.instructions / 1e6 for record in m.counts)
        table.add_row(name, f"{naive:,.1f}", *(cell for count in ours for cell in (f"{count:,.1f}", f"{naive / count:.2f}")))
    return table


def _input_shape(run: Run) -> tuple[int, int, int]:
    frames, size, channels = run.info.shape
    return channels, frames, size
