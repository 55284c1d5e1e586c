"""``clipstep bench-scaling``: how the time of a step scales with T, the size of frames, and the number of streams."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.latency import WARM_UP_STEPS, Worker, configurations_of, take_turns
from clipstep.benchmarks.models import random_run
from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.profile import check_plot
from clipstep.benchmarks.records import Record
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.runtime.engine import Array
from clipstep.runtime.engine_onnxruntime import onnxruntime_session
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.executorch_internals import binding
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.model import StepModel
from clipstep.runtime.targets import targets_for
from clipstep.training.data.lists import DataSet, read_data_set
from clipstep.training.run import load_run, save_run


@dataclass(frozen=True)
class Point:
    """The cost of a step on T frames of one size: its multiply-accumulates, and the median milliseconds in each engine."""

    frames: int
    size: int
    multiply_accumulates: int
    milliseconds: dict[str, float]


def bench_scaling_command(
    data: Path,
    layout: str,
    out: Path,
    architecture: str,
    frames: tuple[int, ...],
    sizes: tuple[int, ...],
    streams: tuple[int, ...],
    rounds: int,
    picture: Path | None,
    force: bool,
) -> None:
    """``clipstep bench-scaling``, whose options are in cli.py."""
    if picture is not None:
        click.get_current_context().with_resource(write_lock(picture))
        check_plot(picture, "--picture", force=force)
    click.get_current_context().with_resource(write_lock(out))
    data_set, console = read_data_set(data, layout=layout, allow_leakage=True), new_console()
    usual = sorted(frames)[-2] if len(frames) > 1 else frames[0]
    shapes = list(dict.fromkeys([*((t, sizes[0]) for t in frames), *((usual, size) for size in sizes)]))
    out.mkdir(parents=True, exist_ok=True)
    bundles = [_bundle(architecture, data_set, t, size, out, console) for t, size in shapes]
    points = _measured(bundles, BenchOptions((1,), rounds, 2), console)
    print_table(console, _point_table(points, shapes.index((usual, sizes[0]))))
    console.print("per MAC: the time of a multiply-accumulate relative to the row marked 1.00; below 1, time grows more slowly than the arithmetic")
    shared = bundles[shapes.index((usual, sizes[0]))]
    several = {engine: stream_ms(shared, engine, streams, rounds) for engine in points[0].milliseconds}
    print_table(console, _stream_table(streams, several, shared))
    for engine in several:
        console.print(f"StepModel.step takes {step_over_bare_call(shared, engine, 10 * rounds):.3f} times as long as {engine}'s own call")
    if picture is not None:
        _draw(points, shapes.index((usual, sizes[0])), streams, several, picture)
        console.print(f"wrote {picture}", soft_wrap=True)


def _bundle(architecture: str, data: DataSet, frames: int, size: int, out: Path, console: Console) -> Bundle:
    folder = out / f"{architecture}-{frames}x{size}"
    path = folder.with_name(f"{folder.name}.clipstep")
    if not path.exists():
        with console.status(f"exporting T = {frames}, {size}x{size}"):
            if not folder.exists():
                save_run(folder, random_run(architecture, data, frames, size))
            export_network(load_run(folder).spec(folder), path, ExportOptions(targets=targets_for("python")), library_context=quiet)
    bundle = Bundle.open(path)
    if bundle.manifest.architecture != architecture or bundle.manifest.input.shape[:2] != (frames, size):
        raise ClipstepError(f"{path}: is of another network or size", fix="choose another --out")
    return bundle


def _measured(bundles: Sequence[Bundle], options: BenchOptions, console: Console) -> list[Point]:
    with contextlib.ExitStack() as stack:
        workers = [
            [stack.enter_context(Worker(configuration, bundle, None)) for configuration in configurations_of(bundle, None, 1)] for bundle in bundles
        ]
        records = iter(take_turns([worker for group in workers for worker in group], options, "one thread", console))
    return [_point(bundle, [next(records) for _ in group]) for bundle, group in zip(bundles, workers, strict=True)]


def _point(bundle: Bundle, records: Sequence[Record]) -> Point:
    frames, size, *_ = bundle.manifest.input.shape
    arithmetic = bundle.manifest.export.multiply_accumulates
    assert arithmetic is not None
    return Point(frames, size, arithmetic, {record.configuration.engine: record.percentile_ms(50) for record in records})


def stream_ms(bundle: Bundle, engine: str, counts: Sequence[int], rounds: int) -> list[float]:
    """Return, for each of ``counts``, the median milliseconds of a step when that many streams take turns on one model."""
    golden = GoldenSteps.of(bundle)
    times: list[list[float]] = [[] for _ in counts]
    with StepModel.load(bundle, engine, 1) as model:
        states = [model.initial_states() for _ in range(max(counts))]
        for turn in range(rounds + 1):
            frames = golden.subclips[turn % len(golden.subclips)].astype(model.interface.input.dtype, copy=False)
            for measured, count in zip(times, counts, strict=True):
                begin = time.perf_counter()
                for stream in range(count):
                    _, states[stream] = model.step(frames, states[stream])
                measured.append((time.perf_counter() - begin) * 1e3 / count)
    return [float(np.median(measured[1:])) for measured in times]


def step_over_bare_call(bundle: Bundle, engine: str, rounds: int) -> float:
    """Return the median time of ``StepModel.step``, which checks its inputs, divided by the median time of the engine's own call."""
    with StepModel.load(bundle, engine, 1) as model:
        frames = GoldenSteps.of(bundle).subclips[0].astype(model.interface.input.dtype, copy=False)
        states = model.initial_states()
        bare = BARE_CALLS[engine](bundle.file(bundle.artifact(ENGINES[engine].target)), [frames, *states])
        times: dict[str, list[float]] = {"bare": [], "step": []}
        for _ in range(WARM_UP_STEPS + rounds):
            for name, call in (("bare", bare), ("step", lambda: model.step(frames, states))):
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
    return float(np.median(times["step"][WARM_UP_STEPS:]) / np.median(times["bare"][WARM_UP_STEPS:]))


def _onnxruntime_call(path: Path, inputs: Sequence[Array]) -> Callable[[], object]:
    session = onnxruntime_session(path, 1)
    feed = dict(zip([value.name for value in session.get_inputs()], inputs, strict=True))
    return lambda: session.run(None, feed)


def _executorch_call(path: Path, inputs: Sequence[Array]) -> Callable[[], object]:
    import torch

    module, tensors = binding().load(str(path)), [torch.from_numpy(value) for value in inputs]
    return lambda: module.forward(tensors)


BARE_CALLS = {"onnxruntime": _onnxruntime_call, "executorch": _executorch_call}


def _point_table(points: Sequence[Point], usual: int) -> Table:
    engines = list(points[0].milliseconds)
    table = new_table("T", "size", "MAC M", *(f"{engine}\n{what}" for engine in engines for what in ("ms", "per MAC")), texts=0)
    for point in points:
        cells = []
        for engine in engines:
            cells += [f"{point.milliseconds[engine]:.2f}", f"{_per_mac(point, engine) / _per_mac(points[usual], engine):.2f}"]
        table.add_row(str(point.frames), str(point.size), f"{point.multiply_accumulates / 1e6:,.0f}", *cells)
    return table


def _per_mac(point: Point, engine: str) -> float:
    return point.milliseconds[engine] / point.multiply_accumulates


def _stream_table(counts: Sequence[int], several: dict[str, list[float]], bundle: Bundle) -> Table:
    state_bytes = sum(4 * int(np.prod(state.shape)) for state in bundle.manifest.states)
    table = new_table("streams", *(f"{engine}\nms a step" for engine in several), "states\nKB", texts=0)
    for row, count in enumerate(counts):
        table.add_row(str(count), *(f"{times[row]:.2f}" for times in several.values()), f"{count * state_bytes / 1e3:,.0f}")
    return table


def _draw(points: Sequence[Point], usual: int, counts: Sequence[int], several: dict[str, list[float]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    ranked = sorted(points, key=lambda point: point.multiply_accumulates)
    arithmetic = [point.multiply_accumulates / 1e6 for point in ranked]
    for engine, colour in zip(several, ("#3b6ea5", "#c0504d"), strict=False):
        left.plot(arithmetic, [point.milliseconds[engine] for point in ranked], "o", color=colour, label=engine)
        proportional = [count * 1e6 * _per_mac(points[usual], engine) for count in arithmetic]
        left.plot(arithmetic, proportional, ":", color=colour, label=f"as the arithmetic, {engine}")
        right.plot(counts, several[engine], "o-", color=colour, label=engine)
    for point in points:  # Labels of the usual size above the points, the others below.
        above = point.size == points[usual].size
        place = (point.multiply_accumulates / 1e6, (max if above else min)(point.milliseconds.values()))
        label = f"{point.frames} of {point.size}²"
        left.annotate(label, place, xytext=(0, 7 if above else -15), textcoords="offset points", ha="center", fontsize=8)
    left.set(xscale="log", yscale="log", xlabel="multiply-accumulates of a step, M", ylabel="ms a step", title="T frames of a size")
    right.set(xlabel="streams on one model", ylabel="ms a step", title="streams", xticks=list(counts), ylim=(0, None))
    for scale in (left.xaxis, left.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(ScalarFormatter())
        scale.set_minor_formatter(NullFormatter())
    for axis in (left, right):
        axis.legend()
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as new:
        figure.savefig(new, dpi=110)
