"""``clipstep bench --profile``: the time of each operator of a step, from the engines' own profilers."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from clipstep.benchmarks.latency import TOOLS, configurations_of
from clipstep.benchmarks.records import OperatorTime, ProfileRecord, now_utc, this_device
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.command_line.terminal import new_table
from clipstep.runtime.engine import Array
from clipstep.runtime.engine_executorch import POOL
from clipstep.runtime.engine_onnxruntime import onnxruntime_session
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.filesystem.overwrite import check_overwrite
from clipstep.runtime.golden import GoldenSteps

LARGEST = 15
"""How many kinds of operators tables and plots show; the others are added up."""
WARM_UP_STEPS = 2


def profile_bundle(bundle: Bundle, steps: int, threads: int) -> list[ProfileRecord]:
    """Profile each artifact that runs on this computer over ``steps`` golden subclips, each from the initial states.

    Raises:
        ClipstepError: there is no such artifact.
    """
    golden, found = GoldenSteps.of(bundle), []
    for configuration in configurations_of(bundle, None, threads):
        artifact, engine = bundle.artifact(configuration.target, precision=configuration.precision), configuration.engine
        interface = bundle.manifest.interface(artifact.input_dtype)
        states = [np.full(state.shape, state.initial, state.dtype) for state in interface.states]
        inputs = [[golden.subclips[i % len(golden.subclips)].astype(artifact.input_dtype, copy=False), *states] for i in range(WARM_UP_STEPS + steps)]
        operators = PROFILERS[engine](bundle.file(artifact), inputs, threads)
        found.append(
            ProfileRecord(
                bundle=bundle.path.name,
                manifest_sha256=bundle.manifest_sha256,
                artifact_sha256=artifact.sha256,
                weights_sha256=bundle.manifest.provenance.weights_sha256,
                configuration=configuration,
                device=this_device(),
                tool_versions={tool: version(tool) for tool in ("clipstep", *TOOLS[engine])},
                profiled_steps=steps,
                operators=tuple(operators),
                measured_utc=now_utc(),
            )
        )
    if not found:
        bundle.check_runs_on_computers()
        raise ClipstepError(f"{bundle.path}: has no artifact that runs here", expected=" or ".join(info.target for info in ENGINES.values()))
    return found


def _onnxruntime(path: Path, inputs: Sequence[Sequence[Array]], threads: int) -> list[OperatorTime]:
    with tempfile.TemporaryDirectory(prefix="clipstep-profile-") as folder:
        session = onnxruntime_session(path, threads, enable_profiling=True, profile_file_prefix=f"{folder}/profile")
        names = [value.name for value in session.get_inputs()]
        for values in inputs:
            session.run(None, dict(zip(names, values, strict=True)))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    count = len(nodes) // len(inputs)
    times = np.array([event["dur"] for event in nodes], float).reshape(len(inputs), count)[WARM_UP_STEPS:]
    return [_node(event, ms) for event, ms in zip(nodes[:count], np.median(times, 0) / 1e3, strict=True)]


def _node(event: dict[str, Any], milliseconds: float) -> OperatorTime:
    shapes = [tuple(shape) for output in event["args"]["output_type_shape"] for shape in output.values()]
    return OperatorTime(kind=event["args"]["op_name"], output_shape=shapes[0] if shapes else None, median_ms=float(milliseconds))


def _executorch(path: Path, inputs: Sequence[Sequence[Array]], threads: int) -> list[OperatorTime]:
    """Return XNNPACK's operators inside the delegates, which are timed in whole microseconds, and ExecuTorch's kernels outside."""
    # Inspector warns that it has no intermediate values, which are not needed here.
    with quiet(), tempfile.TemporaryDirectory(prefix="clipstep-profile-") as folder, POOL.held(threads) as executorch:
        import torch
        from executorch.devtools import Inspector

        module = executorch.load(str(path), enable_etdump=True)
        for values in inputs:
            module.forward([torch.from_numpy(value) for value in values])
        dump = Path(folder) / "profile.etdump"
        module.write_etdump_result_to_file(str(dump))
        blocks = Inspector(etdump_path=str(dump)).event_blocks
    (events,) = [block.events for block in blocks if block.name == "Execute"]
    return [
        OperatorTime(
            kind=event.name.rsplit(" #", 1)[0].removeprefix("native_call_"),
            output_shape=None,
            median_ms=float(np.median(event.perf_data.raw[WARM_UP_STEPS:])),
        )
        for event in events
        if event.is_delegated_op or event.name.startswith("native_call_")
    ]


PROFILERS = {"onnxruntime": _onnxruntime, "executorch": _executorch}


def profile_table(profile: ProfileRecord) -> Table:
    """Return a table of the operators, those of one kind and output shape together, the slowest first."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for operator in profile.operators:
        groups[operator.kind, "x".join(map(str, operator.output_shape or ()))].append(operator.median_ms)
    ranked = sorted(groups.items(), key=lambda item: -sum(item[1]))
    rows = [(*key, times) for key, times in ranked[:LARGEST]]
    if ranked[LARGEST:]:
        rows.append((f"{len(ranked) - LARGEST} kinds more", "", [time for _, times in ranked[LARGEST:] for time in times]))
    title = f"{profile.configuration.name} in {profile.configuration.engine}: {profile.total_ms:.2f} ms a step"
    table = new_table("operator", "output", "count", "ms", "share", texts=2, title=title)
    for kind, shape, times in rows:
        table.add_row(kind, shape, str(len(times)), f"{sum(times):.3f}", f"{sum(times) / profile.total_ms:.0%}")
    return table


def plot_bars(parts: Mapping[str, Mapping[str, float]], unit: str, path: Path) -> None:
    """Write bar charts to ``path``, one for each of ``parts`` on a common scale, with the longest bar first.

    A part is, for example, an artifact; it maps kinds of operators to values in ``unit``. Its title says what the longest bar's share is.

    Raises:
        ClipstepError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(parts), 5), layout="constrained")
    axes = figure.subplots(1, len(parts), squeeze=False, sharex=True)
    for axis, (name, kinds) in zip(axes[0], parts.items(), strict=True):
        ranked = sorted(kinds.items(), key=lambda item: -item[1])
        shown = [*ranked[:LARGEST], *([("others", sum(value for _, value in ranked[LARGEST:]))] if ranked[LARGEST:] else [])]
        labels, values = [label for label, _ in shown][::-1], [value for _, value in shown][::-1]
        bars = axis.barh(labels, values, color="#3b6ea5")
        axis.bar_label(bars, [_short(value) for value in values], padding=3)
        total, (longest, most) = sum(kinds.values()), ranked[0]
        axis.set_title(f"{name}: {total:.1f} {unit} a step,\n{most / total:.0%} of it in {longest}", loc="left", parse_math=False)
        axis.set_xlabel(f"{unit} a step")
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as new:
        figure.savefig(new, dpi=110)


def _short(value: float) -> str:
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def check_plot(path: Path, option: str, *, force: bool) -> None:
    """Check that a plot can be written to ``path``.

    Raises:
        ClipstepError: the name does not end in .png or .svg, the folder does not exist, or a file is there and ``force`` is not given.
    """
    if path.suffix not in (".png", ".svg"):
        raise ClipstepError(f"{path}: is no picture's name", got=path.suffix or "no ending", expected=".png or .svg")
    if not path.parent.is_dir():
        raise ClipstepError(f"{path}: no such folder", fix="make it first")
    check_overwrite(path, force=force, option=option)
