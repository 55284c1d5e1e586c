"""Writes the ATen operators that only move elements as operators of XNNPACK: one small function for each."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from clipstep.export.compat.executorch_internals import schema
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.xnnpack import NHWC, NONE, Graph, XnnValue
from clipstep.export.unsupported import Unsupported

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
        memory = list(some[0].memory)
        memory[place] = sum(part.memory[place] for part in some)
        numbers = [part.number for part in some] + [NONE] * (most - len(some))
        ids = {f"input{i}_id": number for i, number in enumerate(numbers, start=1)}
        return graph.add(CONCATENATIONS[len(some)], memory, axes, axis=place, **ids)

    while len(parts) > most:  # As few as possible are concatenated first, because each concatenation copies them once more.
        first: list[XnnValue] = []
        rest = parts
        while rest and len(first) + len(rest) > most:
            count = min(most, len(first) + len(rest) - most + 1)
            first.append(joined(rest[:count]) if count > 1 else rest[0])
            rest = rest[count:]
        parts = first + rest
    return joined(parts) if len(parts) > 1 else parts[0]


def slice_tensor(graph: Graph, x: XnnValue, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> XnnValue:
    if step != 1:
        raise Unsupported("a `step` other than 1")
    return _slice(graph, x, dim % len(x.axes), start, end)


def _slice(graph: Graph, x: XnnValue, axis: int, start: int | None, end: int | None) -> XnnValue:
    place = x.axes.index(axis)
    kept = range(x.memory[place])[start:end]
    starts, sizes = [0] * len(x.memory), list(x.memory)
    starts[place], sizes[place] = kept.start, len(kept)
    return graph.cut(x, starts, sizes)


def select(graph: Graph, x: XnnValue, dim: int, index: int) -> XnnValue:
    dim, index = dim % len(x.axes), index % x.shape[dim]
    return graph.reshape(_slice(graph, x, dim, index, index + 1), x.shape[:dim] + x.shape[dim + 1 :])


def contiguous(graph: Graph, x: XnnValue, memory_format: Any = None) -> XnnValue:
    return graph.to_layout(x, range(len(x.axes)))


def permute(_: Graph, x: XnnValue, dims: Sequence[int]) -> XnnValue:
    dims = [dim % len(x.axes) for dim in dims]
    return XnnValue(x.number, x.memory, tuple(dims.index(axis) for axis in x.axes))


def transpose(graph: Graph, x: XnnValue, first: int, second: int) -> XnnValue:
    return permute(graph, x, swapped_axes(len(x.axes), first, second))


def pad(graph: Graph, x: XnnValue, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> XnnValue:
    if mode != "constant":
        raise Unsupported("a `mode` other than `constant`")
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
    padded = graph.add(
        schema.XNNStaticConstantPad,
        (*memory[:last], memory[last] * inner),
        range(last + 1),
        pre_paddings=before,
        post_paddings=after,
        padding_value=float(value),
        input_id=joined.number,
    )
    return XnnValue(graph.reshape(padded, memory).number, tuple(memory), x.axes)


def pixel_unshuffle(graph: Graph, x: XnnValue, factor: int) -> XnnValue:
    batch, channels, height, width = x.shape
    split = graph.reshape(x, (batch, channels, height // factor, factor, width // factor, factor))
    moved = permute(graph, split, (0, 1, 3, 5, 2, 4))
    return graph.reshape(moved, (batch, channels * factor**2, height // factor, width // factor))


def identity(_: Graph, x: XnnValue, *args: Any, **kwargs: Any) -> XnnValue:
    return x
