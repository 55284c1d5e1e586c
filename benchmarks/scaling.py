"""``clipstep bench-scaling``: how the time of a step scales with T, the size of frames, and the number of streams."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

STYLES = (("#3b6ea5", "o"), ("#b5382f", "^"))
"""The colour and the marker of each engine; the markers tell them apart in print, too."""


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
        draw(points, shapes.index((usual, sizes[0])), streams, several, picture)
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


def draw(points: Sequence[Point], usual: int, counts: Sequence[int], several: dict[str, list[float]], path: Path) -> None:
    """Plot the time of a step over its arithmetic, and over the number of streams.

    Args:
        points: the steps of several T and sizes.
        usual: which of them the dotted lines go through.
        counts: how many streams there were.
        several: the milliseconds of a step in each engine, one for each of `counts`.
        path: the file, whose suffix is its format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for engine, (colour, marker) in zip(several, STYLES, strict=False):
        _draw_points(left, points, usual, engine, colour, marker)
        right.plot(counts, several[engine], f"{marker}-", color=colour)
        right.annotate(engine, (counts[-1], several[engine][-1]), xytext=(0, -8), textcoords="offset points", ha="right", va="top", color=colour)
    shares = [_per_mac(point, engine) / _per_mac(points[usual], engine) for point in points for engine in several]
    ratios = [times[row] / times[0] for times in several.values() for row in range(len(counts))]
    left.set_title(f"A multiply-accumulate takes {_range(shares)} times that of {_label(points[usual])}", loc="left")
    right.set_title(f"A step takes {_range(ratios)} times as long as with one stream", loc="left")
    frames, size = points[usual].frames, points[usual].size
    note = f"{_label(points[usual])}: T = {frames} frames of {size}x{size}\ndotted: in proportion to the arithmetic"
    left.text(0.98, 0.02, note, transform=left.transAxes, ha="right", fontsize=9, color="#555555")
    left.set(xlabel="multiply-accumulates of a step (M, logarithmic)", ylabel="time of a step (ms, logarithmic)")
    right.set(xlabel="streams on one model", ylabel="time of a step (ms)", xticks=list(counts), ylim=(0, None))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as new:
        figure.savefig(new, dpi=110)


def _draw_points(axis: Any, points: Sequence[Point], usual: int, engine: str, colour: str, marker: str) -> None:
    """Draw an engine's points, each with its T and size beside it, and the line on which time would grow as the arithmetic does."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    ranked = sorted(points, key=lambda point: point.multiply_accumulates)
    arithmetic = [point.multiply_accumulates / 1e6 for point in ranked]
    proportional = [count * 1e6 * _per_mac(points[usual], engine) for count in arithmetic]
    axis.set(xscale="log", yscale="log")
    axis.plot(arithmetic, proportional, ":", color=colour)
    axis.plot(arithmetic, [point.milliseconds[engine] for point in ranked], marker, color=colour)
    slowest = max(points[0].milliseconds, key=lambda name: points[usual].milliseconds[name])
    for point in points if engine == slowest else ():  # The usual size to the left above its point, the others to the right below the lowest one.
        is_usual = point.size == points[usual].size
        place = (point.multiply_accumulates / 1e6, (max if is_usual else min)(point.milliseconds.values()))
        offset, side = ((-7, 4), "right") if is_usual else ((0, -10), "left")
        axis.annotate(_label(point), place, xytext=offset, textcoords="offset points", ha=side, va="bottom" if is_usual else "top", fontsize=9)
    end = (arithmetic[-1], ranked[-1].milliseconds[engine])
    axis.annotate(engine, end, xytext=(10, 0), textcoords="offset points", va="center", color=colour, annotation_clip=False)
    axis.margins(x=0.2, y=0.12)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(ScalarFormatter())
        scale.set_minor_formatter(NullFormatter())


def _label(point: Point) -> str:
    return f"{point.frames} of {point.size}²"


def _range(values: Sequence[float]) -> str:
    low, high = (f"{end(values):.2f}" for end in (min, max))
    return low if low == high else f"{low} to {high}"
