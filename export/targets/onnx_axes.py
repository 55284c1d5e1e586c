"""Writes operators along axes as ONNX: reductions, orders, selections and assignments."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from clipstep.export.targets.onnx_graph import OnnxGraph
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
AXES_ARE_AN_INPUT = {"ReduceMean": 18, "ReduceSum": 13, "ReduceMax": 18, "ReduceMin": 18, "ReduceProd": 18}
"""The first operator set in which the axes of a reduction are an input instead of an attribute."""
WITH_REDUCTION = 16
"""The first operator set whose assignments can add."""


def reduction(name: str, *, counts: bool = False) -> Callable[..., str]:
    """Return a function that writes a reduction; if it `counts`, booleans and integers are reduced as int64."""

    def write(
        graph: OnnxGraph, x: str, dims: Any = None, keep: bool = False, dtype: torch.dtype | None = None, *, kind: torch.dtype | None = None
    ) -> str:
        wanted = torch.int64 if dtype is None and counts and kind is not None and not kind.is_floating_point else dtype
        value = x if wanted in (None, kind) else graph.cast(x, wanted)
        axes = [dims] if isinstance(dims, int) else list(dims or ())
        if axes and graph.opset < AXES_ARE_AN_INPUT[name]:
            return graph.add(name, value, axes=axes, keepdims=int(keep))
        return graph.add(name, value, *([graph.constant(axes)] if axes else []), keepdims=int(keep))

    return write


def extreme_place(name: str) -> Callable[..., str]:
    def write(graph: OnnxGraph, x: str, dim: int | None = None, keep: bool = False, *, kind: torch.dtype, before: Sequence[int]) -> str:
        value = x if kind.is_floating_point else graph.cast(x, torch.float64)
        if dim is not None:
            return graph.add(name, value, axis=dim, keepdims=int(keep))
        place = graph.add(name, graph.add("Reshape", value, graph.constant([-1])), axis=0, keepdims=0)
        return graph.add("Reshape", place, graph.constant([1] * len(before))) if keep else place

    return write


def top_k(graph: OnnxGraph, x: str, k: int, dim: int = -1, largest: bool = True, in_order: bool = True) -> tuple[str, ...]:
    return graph.add_outputs("TopK", x, graph.constant([k]), count=2, axis=dim, largest=int(largest), sorted=int(in_order))


def cumulative_sum(graph: OnnxGraph, x: str, dim: int, dtype: torch.dtype | None = None, *, kind: torch.dtype) -> str:
    wanted = dtype or (kind if kind.is_floating_point else torch.int64)
    return graph.add("CumSum", x if kind == wanted else graph.cast(x, wanted), graph.constant(torch.tensor(dim)))


def flip(graph: OnnxGraph, x: str, dims: Sequence[int], *, before: Sequence[int]) -> str:
    axes = [dim % len(before) for dim in dims]
    ends = [-before[axis] - 1 for axis in axes]
    return graph.add("Slice", x, *(graph.constant(values) for values in ([-1] * len(axes), ends, axes, [-1] * len(axes))))


def expand(graph: OnnxGraph, x: Any, *_: Any, after: Sequence[int], **__: Any) -> str:
    return graph.add("Expand", graph.name(x), graph.constant(list(after)))


def index_select(graph: OnnxGraph, x: Any, dim: int, index: Any) -> str:
    return graph.add("Gather", graph.name(x), graph.name(index), axis=dim)


def gather(graph: OnnxGraph, x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> str:
    return graph.add("GatherElements", graph.name(x), graph.name(index), axis=dim)


def scatter(graph: OnnxGraph, x: Any, dim: int, index: Any, source: Any) -> str:
    return graph.add("ScatterElements", graph.name(x), graph.name(index), graph.name(source), axis=dim)


def scatter_number(graph: OnnxGraph, x: Any, dim: int, index: Any, value: float, *, kind: torch.dtype) -> str:
    name = graph.name(index)
    source = graph.add("Expand", graph.name(value, kind), graph.add("Shape", name))
    return graph.add("ScatterElements", graph.name(x), name, source, axis=dim)


def scatter_add(graph: OnnxGraph, x: Any, dim: int, index: Any, source: Any) -> str:
    if graph.opset < WITH_REDUCTION:
        raise Unsupported("an operator set before 16")
    return graph.add("ScatterElements", graph.name(x), graph.name(index), graph.name(source), axis=dim, reduction="add")


OPERATORS: dict[Any, Callable[..., Any]] = {
    aten.mean.dim: reduction("ReduceMean"),
    aten.sum.dim_IntList: reduction("ReduceSum", counts=True),
    aten.amax.default: reduction("ReduceMax"),
    aten.amin.default: reduction("ReduceMin"),
    aten.prod.dim_int: reduction("ReduceProd", counts=True),
    aten.argmax.default: extreme_place("ArgMax"),
    aten.argmin.default: extreme_place("ArgMin"),
    aten.topk.default: top_k,
    operator.getitem: lambda graph, values, place: values[place],
    aten.cumsum.default: cumulative_sum,
    aten.flip.default: flip,
    aten.expand.default: expand,
    aten.index_select.default: index_select,
    aten.gather.default: gather,
    aten.scatter.src: scatter,
    aten.scatter.value: scatter_number,
    aten.scatter_add.default: scatter_add,
}
