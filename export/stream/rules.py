"""How each operation of a clip network is done on the frames of one step."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clipstep.export.compat.torch_internals import tree_flatten, tree_map_only, tree_unflatten
from clipstep.export.lowering.operators import triple
from clipstep.export.lowering.rules.elementwise import BINARY, UNARY, ZERO_PRESERVING_UNARY
from clipstep.export.stream.interpreter import TIME, Chunk, Steps
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
LOWEST = -60000.0
"""Less than any activation, and a number in float16 as well."""


def framewise(steps: Steps, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """An operation that does the same to each frame."""
    leaves, spec = tree_flatten((args, kwargs))
    chunks = [leaf for leaf in leaves if isinstance(leaf, Chunk)]
    padded_alone = len(chunks) == 1 and chunks[0].delay < 0 and node.target in ZERO_PRESERVING_UNARY
    aligned = iter(chunks if padded_alone else steps.align(chunks))
    args, kwargs = tree_unflatten([next(aligned).data if isinstance(leaf, Chunk) else leaf for leaf in leaves], spec)
    delay = chunks[0].delay if padded_alone else max(0, *(x.delay for x in chunks))
    target: Any = node.target
    extra = chunks[0].extra
    return tree_map_only(Tensor, lambda value: Chunk(value, delay, extra) if value.ndim > TIME else value, target(*args, **kwargs))


def _made(steps: Steps, under: Chunk, data: Tensor) -> Chunk:
    made = replace(under, data=data)
    steps.must_be(made)
    return made


def conv3d(
    steps: Steps,
    _: fx.Node,
    x: Chunk,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1,),
    padding: Any = (0,),
    dilation: Any = (1,),
    groups: int = 1,
) -> Chunk:
    stride, dilation = triple(stride), triple(dilation)
    right = None
    if isinstance(padding, str):
        totals = [d * (size - 1) if padding == "same" else 0 for d, size in zip(dilation, weight.shape[2:], strict=True)]
        if any(total % 2 for total in totals[1:]):
            raise Unsupported("pads its rows or columns unevenly")
        padding = [total // 2 for total in totals]
        right = totals[0] - padding[0]
    padding = triple(padding)
    under = steps.window(x, dilation[0] * (weight.shape[2] - 1) + 1, stride[0], padding[0], padding[0] if right is None else right)
    return _made(steps, under, F.conv3d(under.data, weight, bias, stride, (0, *padding[1:]), dilation, groups))


def max_pool3d(
    steps: Steps, _: fx.Node, x: Chunk, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil_mode: bool = False
) -> Chunk:
    kernel, padding, dilation = triple(kernel), triple(padding), triple(dilation)
    stride = triple(stride or kernel)
    if ceil_mode and stride[0] > 1:
        raise Unsupported("may run over the end of the video (ceil_mode)")
    under = steps.window(x, dilation[0] * (kernel[0] - 1) + 1, stride[0], padding[0], padding[0], LOWEST if padding[0] else 0.0)
    return _made(steps, under, F.max_pool3d(under.data, kernel, stride, (0, *padding[1:]), dilation, ceil_mode))


def avg_pool3d(
    steps: Steps,
    _: fx.Node,
    x: Chunk,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Chunk:
    kernel, padding = triple(kernel), triple(padding)
    stride = triple(stride or kernel)
    if (ceil_mode and stride[0] > 1) or (padding[0] and not count_padding and not divisor):
        raise Unsupported("divides by how many frames are there (ceil_mode, or a padding that is not counted)")
    under = steps.window(x, kernel[0], stride[0], padding[0], padding[0])
    return _made(steps, under, F.avg_pool3d(under.data, kernel, stride, (0, *padding[1:]), ceil_mode, count_padding, divisor))


def pad_time(steps: Steps, _: fx.Node, x: Chunk, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Chunk:
    """Before the first frame: a matter of counting. Behind the last one: as long as the video goes on, too."""
    plane, (front, back) = list(amounts[:4]), (*amounts[4:6], 0, 0)[:2]
    if back < 0 or ((front or back) and (mode != "constant" or value)):
        raise Unsupported("pads time with something else than zeros, or cuts its end off")
    data = steps.inside(x, 0, 0.0, front > 0 and x.delay > 0, back > 0)
    return Chunk(F.pad(data, plane, mode, value) if any(plane) else data, x.delay - front, x.extra + front + back)


def slice_time(steps: Steps, node: fx.Node, x: Chunk, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Chunk:
    if dim % x.data.ndim != TIME:
        sliced: Chunk = framewise(steps, node, x, dim, start, end, step)
        return sliced
    length = node.all_input_nodes[0].meta["val"].shape[TIME]
    kept = range(length)[start:end:step]
    left_out = (length - 1 - kept.start) // step + 1 - len(kept)
    if left_out and step != 1:
        raise Unsupported("takes every other frame, and not to the end")
    under = steps.window(x, 1, step, -kept.start, 0)
    late = max(under.delay, kept.start + left_out)
    every = Chunk(under.data[:, :, ::step], under.delay, under.extra - left_out)
    return every if late == every.delay else replace(every, data=steps.past.extend(every.data, late - every.delay)[:, :, : every.frames], delay=late)


def cat(steps: Steps, node: fx.Node, parts: Sequence[Any], dim: int = 0) -> Any:
    if not all(isinstance(part, Chunk) for part in parts) or dim % parts[0].data.ndim == TIME:
        raise Unsupported("joins something along time")
    return framewise(steps, node, parts, dim)


def pair(steps: Steps, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    for value in args:
        if isinstance(value, Tensor) and value.ndim > TIME and value.shape[-3] > 1 and any(isinstance(x, Chunk) and x.data.ndim == 5 for x in args):
            raise Unsupported("takes other numbers for each frame")
    return framewise(steps, node, *args, **kwargs)


def mean(steps: Steps, node: fx.Node, x: Chunk, dims: Sequence[int] = (), keepdim: bool = False) -> Any:
    """Over rows and columns frame by frame; over time of all the frames so far."""
    rank = x.data.ndim
    dims = sorted(d % rank for d in dims) or list(range(rank))
    if TIME not in dims:
        if min(dims) < TIME:
            raise Unsupported("takes the mean over channels")
        return framewise(steps, node, x, dims, keepdim)
    if dims[0] < TIME:
        raise Unsupported("takes the mean over channels and time")
    (x,) = steps.align([x])
    data = x.data.mean(dims[1:], True) if dims[1:] else x.data
    mean = over_time(steps, node, replace(x, data=data))
    return mean if keepdim else mean.reshape([size for d, size in enumerate(mean.shape) if d not in dims])


def over_time(steps: Steps, node: fx.Node, x: Chunk) -> Tensor:
    """The mean of all frames so far or, with a window, of those that its steps gave; the time axis is kept."""
    steps.must_be(x)
    steps.means[node] = x
    steps.timeless.add(node)
    shape = [1 if d == TIME else size for d, size in enumerate(x.data.shape)]
    rank5 = replace(x, data=x.data.reshape(*x.data.shape, *[1] * (5 - x.data.ndim)))
    data = steps.inside(rank5, 0, 0.0, x.delay > 0, x.missing > 0).reshape(x.data.shape)
    total = reduce(torch.add, data.chunk(x.frames, TIME))  # Not a sum over an axis, which XNNPACK does not take.
    given = (steps.position + 1) * x.frames - x.delay
    after = (steps.ended * x.frames - x.missing).clamp(0, x.frames) if steps.ended is not None and x.missing > 0 else 0
    if steps.window_steps is None:
        return _so_far(steps, total, x, given, after).reshape(shape)
    return _newest(steps, total, x, given, after, steps.window_steps).reshape(shape)


def _so_far(steps: Steps, total: Tensor, x: Chunk, given: Tensor, after: Tensor | int) -> Tensor:
    """The mean of earlier steps, moved towards the new frames by their share; ``after`` of them are after the video's last one."""
    old = steps.past.take(total.shape[1:])
    fresh = (given.clamp(0, x.frames) if x.delay else torch.full_like(given, x.frames)) - after
    single = [1] * total.ndim
    new: Tensor = old + (total - old * fresh.reshape(single)) / (given - after).clamp(min=1).reshape(single)
    steps.past.keep(new)
    return new


def _newest(steps: Steps, total: Tensor, x: Chunk, given: Tensor, after: Tensor | int, window: int) -> Tensor:
    """The mean over the newest steps, from the sum that each of them gave."""
    count = (given.clamp(max=window * x.frames) - after).clamp(min=1)
    return steps.past.sum_of_newest(total.flatten(1), window) / count


def adaptive_avg_pool3d(steps: Steps, node: fx.Node, x: Chunk, sizes: Sequence[int]) -> Any:
    if sizes[0] != 1:
        raise Unsupported("divides all of time into parts")
    (x,) = steps.align([x])
    return over_time(steps, node, replace(x, data=F.adaptive_avg_pool3d(x.data, (x.frames, sizes[1], sizes[2]))))


def squeeze(steps: Steps, node: fx.Node, x: Chunk, dims: int | Sequence[int]) -> Any:
    asked = [d % x.data.ndim for d in ([dims] if isinstance(dims, int) else dims)]
    if min(asked) <= TIME:
        raise Unsupported("takes away the axis of time, or one before it")
    return framewise(steps, node, x, dims)


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((*ZERO_PRESERVING_UNARY, *UNARY), framewise),
    **dict.fromkeys(BINARY, pair),
    **dict.fromkeys((aten._native_batch_norm_legit_no_training.default, aten.channel_shuffle.default), framewise),
    **dict.fromkeys((aten.clone.default, aten.alias.default, aten.detach.default, aten.pow.Tensor_Scalar), framewise),
    aten.conv3d.default: conv3d,
    aten.conv3d.padding: conv3d,
    aten.max_pool3d.default: max_pool3d,
    aten.avg_pool3d.default: avg_pool3d,
    aten.adaptive_avg_pool3d.default: adaptive_avg_pool3d,
    aten.pad.default: pad_time,
    aten.constant_pad_nd.default: lambda steps, node, x, amounts, value=0: pad_time(steps, node, x, amounts, "constant", value),
    aten.slice.Tensor: slice_time,
    aten.cat.default: cat,
    aten.mean.dim: mean,
    aten.mean.default: mean,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze,
    operator.getitem: lambda steps, node, values, index: values[index],
}
