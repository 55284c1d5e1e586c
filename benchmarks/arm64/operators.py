"""The cost of each operator of a step, from the marks that the counter writes while an engine's own profiler is on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipstep.benchmarks.arm64.marks import CLOCK_GETTIME, GETPID, GETUID, Mark, steps_of
from clipstep.benchmarks.records import Counts, OperatorCount
from clipstep.runtime.errors import ClipstepError

TICK_NS = 1_000_000
"""How far the clock of ``step_executorch.cpp`` advances with each reading."""


def onnxruntime_operators(folder: Path, marks: Sequence[Mark]) -> tuple[OperatorCount, ...]:
    """Return the operators of the last step. While profiling, onnxruntime reads the clock before and after each node, then calls getpid.

    Raises:
        ClipstepError: the profile and the marks do not match.
    """
    events: list[dict[str, Any]] = json.loads((folder / "operators.json").read_text(encoding="utf-8"))
    steps = steps_of(marks)
    nodes = [event for event in events if event.get("cat") == "Node"]
    nodes = nodes[len(nodes) // len(steps) * (len(steps) - 1) :]
    last = steps[-1]
    costs = [
        end.counts - start.counts
        for start, end, done in zip(last, last[1:], last[2:], strict=False)
        if (start.call, end.call, done.call) == (CLOCK_GETTIME, CLOCK_GETTIME, GETPID)
    ][: len(nodes)]
    _check_fit("onnxruntime", len(costs), len(nodes))
    return tuple(_node(node, cost) for node, cost in zip(nodes, costs, strict=True))


def _node(event: dict[str, Any], cost: Counts) -> OperatorCount:
    shapes = [tuple(shape) for output in event["args"]["output_type_shape"] for shape in output.values()]
    name = event["name"].removesuffix("_kernel_time")
    return OperatorCount(name=name, kind=event["args"]["op_name"], output_shape=shapes[0] if shapes else None, **cost.model_dump())


def executorch_operators(folder: Path, marks: Sequence[Mark]) -> tuple[OperatorCount, ...]:
    """Return the operators of the last step: kernels outside delegates, and XNNPACK's operators inside them, some of which run in several parts.

    Raises:
        ClipstepError: what the runner wrote and the marks do not match.
    """
    lines = (folder / "operators.txt").read_text(encoding="utf-8").splitlines()
    lines = lines[len(lines) - lines[::-1].index("start Method::execute") - 1 :]
    last = [mark for mark in steps_of(marks)[-1] if mark.call in (GETPID, GETUID)]
    _check_fit("ExecuTorch", sum(mark.call == GETUID for mark in last), sum(not line.startswith("inside") for line in lines))
    found: list[OperatorCount] = []
    position = -1
    for index, line in enumerate(lines):
        if line.startswith("inside"):
            continue
        position = next(i for i in range(position + 1, len(last)) if last[i].call == GETUID)
        if line.startswith("start native_call_"):
            cost = last[position + 1].counts - last[position].counts
            name = line.removeprefix("start native_call_")
            found.append(OperatorCount(name=name, kind=name, output_shape=None, **cost.model_dump()))
        elif line == "start DELEGATE_CALL":
            found += _inside(lines[index + 1 :], last[position + 1 :])
    return tuple(found)


def _inside(lines: Sequence[str], marks: Sequence[Mark]) -> list[OperatorCount]:
    """Return the operators of one delegate call. XNNPACK reads the clock once at the start, and then at the end of each part of an operator."""
    reported = [line.split(maxsplit=2)[1:] for line in lines[: lines.index("end")] if line.startswith("inside")]
    clock = [mark.counts for mark in marks[: next(i for i, mark in enumerate(marks) if mark.call == GETUID)]]
    parts = [round(int(nanoseconds) / TICK_NS) for nanoseconds, _ in reported]
    if not parts:
        return []
    clock = clock[1:]  # The first reading is ExecuTorch's own.
    _check_fit("XNNPACK", len(clock) - 1, sum(parts))
    found, position = [], 0
    for (_, name), count in zip(reported, parts, strict=True):
        cost = clock[position + count] - clock[position]
        found.append(OperatorCount(name=name, kind=name.rsplit(" #", 1)[0], output_shape=None, **cost.model_dump()))
        position += count
    return found


def _check_fit(engine: str, got: int, expected: int) -> None:
    if got != expected:
        raise ClipstepError(f"{engine}'s operators cannot be told apart", got=f"{got} marks", expected=f"{expected}, one an operator")


def without_profiling(operators: Sequence[OperatorCount], step: Counts) -> tuple[OperatorCount, ...]:
    """Return the operators without the overhead of profiling.

    The overhead is the amount by which all operators of a profiled step together exceed the whole unprofiled ``step``. It hardly depends on the
    operator, so an equal part of it is subtracted from each.
    """
    sums = {key: sum(getattr(operator, key) for operator in operators) for key in Counts.model_fields}
    excess = {key: max(0, value - getattr(step, key)) / len(operators) for key, value in sums.items()}
    return tuple(o.model_copy(update={key: max(0, round(getattr(o, key) - value)) for key, value in excess.items()}) for o in operators)
