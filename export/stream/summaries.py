"""Rules for operations whose result is of all frames so far: a mean over time, and the last frame."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clipstep.export.stream.interpreter import Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def mean(stream: StreamInterpreter, node: fx.Node, x: Chunk, dims: int | Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Any:
    """Take a mean within each frame, or over time by `over_time`."""
    rank = x.data.ndim
    dims = sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank)))
    others = [d for d in dims if d != x.axis]
    (x,) = stream.align([x])
    if x.axis not in dims:
        return replace(x, data=x.data.mean(others, keepdim), axis=x.axis - (0 if keepdim else sum(d < x.axis for d in others)))
    mean = over_time(stream, node, replace(x, data=x.data.mean(others, True) if others else x.data))
    return mean if keepdim else mean.reshape([size for d, size in enumerate(mean.shape) if d not in dims])


def reduction(
    stream: StreamInterpreter, node: fx.Node, x: Chunk, dims: int | Sequence[int] | None = None, keepdim: bool = False, **kwargs: Any
) -> Chunk:
    """Another reduction within each frame."""
    rank = x.data.ndim
    dims = sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank)))
    if x.axis in dims:
        raise Unsupported("reduces time by other than a mean or the last frame")
    (x,) = stream.align([x])
    target: Any = node.target
    return replace(x, data=target(x.data, dims, keepdim, **kwargs), axis=x.axis - (0 if keepdim else sum(d < x.axis for d in dims)))


def over_time(stream: StreamInterpreter, node: fx.Node, x: Chunk) -> Tensor:
    """Return the mean over all frames so far or, with a window, over those of its steps. The axis of time is kept, with length 1."""
    stream.summarise(node, x)
    stream.has_mean = True
    flat = x.rank5
    data = stream.fill_outside(flat, 0, 0.0, before=x.delay > 0, after=x.pending > 0)
    total = reduce(torch.add, data.chunk(x.frames, flat.axis))  # Not a sum over an axis, which XNNPACK does not take.
    given = (stream.position + 1) * x.frames - x.delay
    after = (stream.ended * x.frames - x.pending).clamp(0, x.frames) if stream.ended is not None and x.pending > 0 else 0
    if stream.window_steps is None:
        result = _running_mean(stream, total, flat, given, after)
    else:
        result = _window_mean(stream, total, flat, given, after, stream.window_steps)
    return result.reshape([1 if d == x.axis else size for d, size in enumerate(x.data.shape)])


def _running_mean(stream: StreamInterpreter, total: Tensor, x: Chunk, given: Tensor, after: Tensor | int) -> Tensor:
    """Update the mean over earlier steps with the new frames, `after` of which are after the end of the video."""
    old = stream.past.read(total.shape[1:])
    fresh = (given.clamp(0, x.frames) if x.delay else float(x.frames)) - after
    single = [1] * total.ndim
    share = fresh.reshape(single) if isinstance(fresh, Tensor) else fresh
    new: Tensor = old + (total - old * share) / (given - after).clamp(min=1).reshape(single)
    stream.past.write(new)
    return new


def _window_mean(stream: StreamInterpreter, total: Tensor, x: Chunk, given: Tensor, after: Tensor | int, window: int) -> Tensor:
    """Return the mean over the newest steps, from the remembered sum of each."""
    count = (given.clamp(max=window * x.frames) - after).clamp(min=1)
    return stream.past.sum_of_newest(total.flatten(1), window) / count


def adaptive_avg_pool3d(stream: StreamInterpreter, node: fx.Node, x: Chunk, sizes: Sequence[int]) -> Any:
    if sizes[0] != 1:
        raise Unsupported("has more than one output frame")
    (x,) = stream.align([x])
    return over_time(stream, node, replace(x, data=F.adaptive_avg_pool3d(x.data, (x.frames, sizes[1], sizes[2]))))


def last(stream: StreamInterpreter, node: fx.Node, x: Chunk) -> Tensor:
    """Return the newest frame that is in the video, with an axis of time of length 1.

    After the end of the video the newest frames are outside of it; the last one before them is remembered then.
    """
    (x,) = stream.align([x])
    stream.summarise(node, x)
    if x.pending <= 0:
        return x.data.narrow(x.axis, x.frames - 1, 1)
    end = (x.pending - 1) % x.frames
    newest, final = (x.data.narrow(x.axis, place, 1) for place in (x.frames - 1, end))
    inside = stream.inside(x, 0, before=False, after=True)
    before = stream.past.read(final.shape[1:] if len(final) == 1 else final.shape).reshape(final.shape)
    value = newest
    if inside is not None:
        all_inside, some_inside = inside[x.frames - 1 :], inside[end : end + 1]
        value = all_inside * newest + (1 - all_inside) * (some_inside * final + (1 - some_inside) * before)
    stream.past.write(value.reshape(1, -1))
    return value


RULES: dict[Any, Any] = {
    aten.mean.dim: mean,
    aten.mean.default: mean,
    **dict.fromkeys((aten.sum.dim_IntList, aten.amax.default, aten.amin.default), reduction),
    aten.adaptive_avg_pool3d.default: adaptive_avg_pool3d,
}
