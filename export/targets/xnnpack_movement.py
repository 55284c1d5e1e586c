"""Writes the ATen operators that only move elements as operators of XNNPACK: one small function for each."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.executorch_internals import schema
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.common import check_padding
from clipstep.export.targets.xnnpack import NHWC, NONE, Graph, XnnValue
from clipstep.export.unsupported import NotLowered, Unsupported

MOST_RUNS = 64
"""An index of more runs of neighbours than this is left to a portable kernel, because each run is a slice."""
CONCATENATIONS = {2: schema.XNNConcatenate2, 3: schema.XNNConcatenate3, 4: schema.XNNConcatenate4, 5: schema.XNNConcatenate5}


def xnn_value(value: Any) -> XnnValue:
    if not isinstance(value, XnnValue):
        raise Unsupported("an input that is constant")
    return value


def reshape(graph: Graph, x: Any, *_: Any, after: Sequence[int], channels_last: bool) -> XnnValue:
    return graph.reshape(xnn_value(x), after, channels_last)


def with_last_axis(graph: Graph, x: XnnValue, axis: int) -> XnnValue:
    """Return the value in a layout in which an axis is the last one in memory."""
    return x if x.axes[-1] == axis else graph.to_layout(x, [*(other for other in x.axes if other != axis), axis])


def channels_last(graph: Graph, x: XnnValue) -> XnnValue:
    if len(x.axes) != len(NHWC):
        raise NotLowered("a value without a batch axis")
    return graph.to_layout(x, NHWC)


def largest(values: Sequence[XnnValue]) -> XnnValue:
    """Return the largest of several values; if several are equally large, one that is channels last is preferred."""
    return max(values, key=lambda value: (len(value.axes), math.prod(value.memory), value.axes == NHWC))


def constant(graph: Graph, tensor: Tensor, axes: Sequence[int]) -> XnnValue:
    moved = tensor.permute(tuple(axes))
    return XnnValue(graph.constant(moved), tuple(moved.shape), tuple(axes))


def cat(graph: Graph, values: Sequence[Any], dim: int = 0) -> XnnValue:
    axes = largest([value for value in values if isinstance(value, XnnValue)]).axes
    parts = [graph.to_layout(value, axes) if isinstance(value, XnnValue) else constant(graph, value, axes) for value in values]
    place = axes.index(dim % len(axes))
    most = max(CONCATENATIONS)

    def joined(some: Sequence[XnnValue]) -> XnnValue:
        if len(some) == 1:
            return some[0]
        memory = list(some[0].memory)
        memory[place] = sum(part.memory[place] for part in some)
        numbers = [part.number for part in some] + [NONE] * (most - len(some))
        ids = {f"input{i}_id": number for i, number in enumerate(numbers, start=1)}
        return graph.add(CONCATENATIONS[len(some)], memory, axes, like=some[0].number, axis=place, **ids)

    while len(parts) > most:  # As few as possible are concatenated first, because each concatenation copies them once more.
        first: list[XnnValue] = []
        rest = parts
        while rest and len(first) + len(rest) > most:
            count = min(most, len(first) + len(rest) - most + 1)
            first.append(joined(rest[:count]))
            rest = rest[count:]
        parts = first + rest
    return joined(parts)


def slice_tensor(graph: Graph, x: XnnValue, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> XnnValue:
    """Slice a value. With a step, its axis is split into rows of `step` entries, of which the first ones are taken."""
    dim %= len(x.axes)
    if step == 1:
        return _slice(graph, x, dim, start, end)
    length = x.shape[dim]
    kept = range(length)[start:end:step]
    missing = kept.start + len(kept) * step - length
    if missing > 0:
        x = constant_pad(graph, x, [0] * 2 * (len(x.axes) - 1 - dim) + [0, missing])
    whole = _slice(graph, x, dim, kept.start, kept.start + len(kept) * step)
    rows = graph.reshape(whole, (*x.shape[:dim], len(kept), step, *x.shape[dim + 1 :]))
    return graph.reshape(_slice(graph, rows, dim + 1, 0, 1), (*x.shape[:dim], len(kept), *x.shape[dim + 1 :]))


def _slice(graph: Graph, x: XnnValue, axis: int, start: int | None, end: int | None) -> XnnValue:
    place = x.axes.index(axis)
    kept = range(x.memory[place])[start:end]
    starts, sizes = [0] * len(x.memory), list(x.memory)
    starts[place], sizes[place] = kept.start, len(kept)
    return graph.cut(x, starts, sizes)


def select(graph: Graph, x: XnnValue, dim: int, index: int) -> XnnValue:
    dim, index = dim % len(x.axes), index % x.shape[dim]
    return graph.reshape(_slice(graph, x, dim, index, index + 1), x.shape[:dim] + x.shape[dim + 1 :])


def expand(graph: Graph, x: XnnValue, sizes: Sequence[int], *, implicit: bool = False, after: Sequence[int]) -> XnnValue:
    """Expand a value: a product with ones, which XNNPACK broadcasts."""
    x = graph.reshape(x, (*[1] * (len(after) - len(x.axes)), *x.shape))
    repeats = [size if old == 1 else 1 for old, size in zip(x.shape, after, strict=True)]
    if max(repeats, default=1) == 1:
        return x
    ones = constant(graph, torch.ones(repeats), x.axes)
    memory = [max(sizes) for sizes in zip(x.memory, ones.memory, strict=True)]
    return graph.add(schema.XNNMultiply, memory, x.axes, input1_id=x.number, input2_id=ones.number)


def index_select(graph: Graph, x: XnnValue, dim: int, index: Any) -> XnnValue:
    """Select entries that are known at export: repeated ones by an expansion, others by slices of the runs that they make."""
    if isinstance(index, XnnValue):
        raise Unsupported("an index that is computed")
    return _taken(graph, x, dim % len(x.axes), [place % x.shape[dim] for place in index.tolist()])


def flip(graph: Graph, x: XnnValue, dims: Sequence[int]) -> XnnValue:
    for dim in (dim % len(x.axes) for dim in dims):
        x = _taken(graph, x, dim, range(x.shape[dim])[::-1])
    return x


def _taken(graph: Graph, x: XnnValue, dim: int, places: Sequence[int]) -> XnnValue:
    first, count = places[0], places.count(places[0])
    if count > 1 and len(places) % count == 0 and list(places) == [first + i // count for i in range(len(places))]:
        rows = _slice(graph, x, dim, first, places[-1] + 1)
        shape = [*x.shape[: dim + 1], count, *x.shape[dim + 1 :]]
        shape[dim] = len(places) // count
        repeated = expand(graph, graph.reshape(rows, [*shape[: dim + 1], 1, *shape[dim + 2 :]]), shape, after=shape)
        return graph.reshape(repeated, (*x.shape[:dim], len(places), *x.shape[dim + 1 :]))
    starts = [i for i, place in enumerate(places) if i == 0 or place != places[i - 1] + 1]
    if len(starts) > MOST_RUNS:
        raise Unsupported("an index of more than 64 runs of neighbours")
    runs = [places[start:end] for start, end in pairwise([*starts, len(places)])]
    return cat(graph, [_slice(graph, x, dim, run[0], run[-1] + 1) for run in runs], dim)


def contiguous(graph: Graph, x: XnnValue, memory_format: Any = None) -> XnnValue:
    return graph.to_layout(x, range(len(x.axes)))


def permute(_: Graph, x: XnnValue, dims: Sequence[int]) -> XnnValue:
    dims = [dim % len(x.axes) for dim in dims]
    return XnnValue(x.number, x.memory, tuple(dims.index(axis) for axis in x.axes))


def transpose(graph: Graph, x: XnnValue, first: int, second: int) -> XnnValue:
    return permute(graph, x, swapped_axes(len(x.axes), first, second))


def pad(graph: Graph, x: XnnValue, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> XnnValue:
    check_padding(mode)
    return constant_pad(graph, x, amounts, value or 0.0)


def constant_pad(graph: Graph, x: XnnValue, amounts: Sequence[int], value: float = 0.0) -> XnnValue:
    if min(amounts) < 0:
        raise Unsupported("negative amounts")
    if not any(amounts):
        return x
    before, after = [0] * len(x.axes), [0] * len(x.axes)
    for i in range(len(amounts) // 2):
        place = x.axes.index(len(x.axes) - 1 - i)
        before[place], after[place] = amounts[2 * i], amounts[2 * i + 1]
    memory = [size + a + b for size, a, b in zip(x.memory, before, after, strict=True)]
    last = max((place for place in range(len(memory)) if before[place] or after[place]), default=-1)
    # Padding works row by row of the last axis, so the axes after the last padded one are joined with it to make long rows.
    inner = math.prod(x.memory[last + 1 :])
    joined = graph.reshape(XnnValue(x.number, x.memory, tuple(range(len(memory)))), (*x.memory[:last], x.memory[last] * inner))
    before, after = ([*counts[:last], counts[last] * inner] for counts in (before, after))
    padded = graph.moved(
        schema.XNNStaticConstantPad,
        (*memory[:last], memory[last] * inner),
        range(last + 1),
        joined.number,
        pre_paddings=before,
        post_paddings=after,
        padding_value=float(value),
    )
    return XnnValue(graph.reshape(padded, memory).number, tuple(memory), x.axes)


def identity(_: Graph, x: XnnValue, *args: Any, **kwargs: Any) -> XnnValue:
    return x
