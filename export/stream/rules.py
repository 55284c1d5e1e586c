"""The rules by which each operation of a clip network is done on the frames of one step.

A rule is called as `rule(stream, node, *args, **kwargs)`, with the arguments of the ATen operator. It raises `Unsupported` for settings
that it does not cover.
"""

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
from clipstep.export.stream.interpreter import TIME, Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
LOWEST = -60000.0
"""The padding of max pools in time: less than any activation, and finite in float16 too."""


def framewise(stream: StreamInterpreter, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """An operation that treats each frame alike."""
    leaves, spec = tree_flatten((args, kwargs))
    chunks = [leaf for leaf in leaves if isinstance(leaf, Chunk)]
    padded_alone = len(chunks) == 1 and chunks[0].delay < 0 and node.target in ZERO_PRESERVING_UNARY
    aligned = iter(chunks if padded_alone else stream.align(chunks))
    args, kwargs = tree_unflatten([next(aligned).data if isinstance(leaf, Chunk) else leaf for leaf in leaves], spec)
    delay = chunks[0].delay if padded_alone else max(0, *(x.delay for x in chunks))
    target: Any = node.target
    extra = chunks[0].extra
    return tree_map_only(Tensor, lambda value: Chunk(value, delay, extra) if value.ndim > TIME else value, target(*args, **kwargs))


def _kernel_output(stream: StreamInterpreter, kernel_input: Chunk, data: Tensor) -> Chunk:
    output = replace(kernel_input, data=data)
    stream.require_frame(output)
    return output


def conv3d(
    stream: StreamInterpreter,
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
    frames = stream.kernel_input(x, dilation[0] * (weight.shape[2] - 1) + 1, stride[0], padding[0], padding[0] if right is None else right)
    return _kernel_output(stream, frames, F.conv3d(frames.data, weight, bias, stride, (0, *padding[1:]), dilation, groups))


def max_pool3d(
    stream: StreamInterpreter,
    _: fx.Node,
    x: Chunk,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    dilation: Any = (1,),
    ceil_mode: bool = False,
) -> Chunk:
    kernel, padding, dilation = triple(kernel), triple(padding), triple(dilation)
    stride = triple(stride or kernel)
    if ceil_mode and stride[0] > 1:
        raise Unsupported("may run over the end of the video (ceil_mode)")
    frames = stream.kernel_input(x, dilation[0] * (kernel[0] - 1) + 1, stride[0], padding[0], padding[0], LOWEST if padding[0] else 0.0)
    return _kernel_output(stream, frames, F.max_pool3d(frames.data, kernel, stride, (0, *padding[1:]), dilation, ceil_mode))


def avg_pool3d(
    stream: StreamInterpreter,
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
        raise Unsupported("divides by the number of frames in the window (ceil_mode, or a padding that is not counted)")
    frames = stream.kernel_input(x, kernel[0], stride[0], padding[0], padding[0])
    return _kernel_output(stream, frames, F.avg_pool3d(frames.data, kernel, stride, (0, *padding[1:]), ceil_mode, count_padding, divisor))


def pad_time(stream: StreamInterpreter, _: fx.Node, x: Chunk, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Chunk:
    """Pad rows and columns as usual. Frames of zeros before or after the video change only the value's `delay` and `extra`, not the step's frames."""
    plane, (front, back) = list(amounts[:4]), (*amounts[4:6], 0, 0)[:2]
    if back < 0 or ((front or back) and (mode != "constant" or value)):
        raise Unsupported("pads time with other values than zeros, or removes frames at the end")
    data = stream.fill_outside(x, 0, 0.0, before=front > 0 and x.delay > 0, after=back > 0)
    return Chunk(F.pad(data, plane, mode, value) if any(plane) else data, x.delay - front, x.extra + front + back)


def slice_time(
    stream: StreamInterpreter, node: fx.Node, x: Chunk, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Chunk:
    if dim % x.data.ndim != TIME:
        sliced: Chunk = framewise(stream, node, x, dim, start, end, step)
        return sliced
    length = node.all_input_nodes[0].meta["val"].shape[TIME]
    kept = range(length)[start:end:step]
    left_out = (length - 1 - kept.start) // step + 1 - len(kept)
    if left_out and step != 1:
        raise Unsupported("takes every other frame, but not up to the last one")
    frames = stream.kernel_input(x, 1, step, -kept.start, 0)
    late = max(frames.delay, kept.start + left_out)
    every = Chunk(frames.data[:, :, ::step], frames.delay, frames.extra - left_out)
    return every if late == every.delay else replace(every, data=stream.past.extend(every.data, late - every.delay)[:, :, : every.frames], delay=late)


def cat(stream: StreamInterpreter, node: fx.Node, parts: Sequence[Any], dim: int = 0) -> Any:
    if not all(isinstance(part, Chunk) for part in parts) or dim % parts[0].data.ndim == TIME:
        raise Unsupported("concatenates along time")
    return framewise(stream, node, parts, dim)


def binary(stream: StreamInterpreter, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    for value in args:
        if isinstance(value, Tensor) and value.ndim > TIME and value.shape[-3] > 1 and any(isinstance(x, Chunk) and x.data.ndim == 5 for x in args):
            raise Unsupported("has an operand that differs from frame to frame")
    return framewise(stream, node, *args, **kwargs)


def mean(stream: StreamInterpreter, node: fx.Node, x: Chunk, dims: Sequence[int] = (), keepdim: bool = False) -> Any:
    """Take a mean over the rows and columns of each frame, or over time by `over_time`."""
    rank = x.data.ndim
    dims = sorted(d % rank for d in dims) or list(range(rank))
    if TIME not in dims:
        if min(dims) < TIME:
            raise Unsupported("takes the mean over channels")
        return framewise(stream, node, x, dims, keepdim)
    if dims[0] < TIME:
        raise Unsupported("takes the mean over channels and time")
    (x,) = stream.align([x])
    data = x.data.mean(dims[1:], True) if dims[1:] else x.data
    mean = over_time(stream, node, replace(x, data=data))
    return mean if keepdim else mean.reshape([size for d, size in enumerate(mean.shape) if d not in dims])


def over_time(stream: StreamInterpreter, node: fx.Node, x: Chunk) -> Tensor:
    """Return the mean over all frames so far or, with a window, over those of its steps. The axis of time is kept, with length 1."""
    stream.require_frame(x)
    stream.means[node] = x
    stream.after_mean.add(node)
    shape = [1 if d == TIME else size for d, size in enumerate(x.data.shape)]
    rank5 = replace(x, data=x.data.reshape(*x.data.shape, *[1] * (5 - x.data.ndim)))
    data = stream.fill_outside(rank5, 0, 0.0, before=x.delay > 0, after=x.pending > 0).reshape(x.data.shape)
    total = reduce(torch.add, data.chunk(x.frames, TIME))  # Not a sum over an axis, which XNNPACK does not take.
    given = (stream.position + 1) * x.frames - x.delay
    after = (stream.ended * x.frames - x.pending).clamp(0, x.frames) if stream.ended is not None and x.pending > 0 else 0
    if stream.window_steps is None:
        return _running_mean(stream, total, x, given, after).reshape(shape)
    return _window_mean(stream, total, x, given, after, stream.window_steps).reshape(shape)


def _running_mean(stream: StreamInterpreter, total: Tensor, x: Chunk, given: Tensor, after: Tensor | int) -> Tensor:
    """Update the mean over earlier steps with the new frames, `after` of which are after the end of the video."""
    old = stream.past.read(total.shape[1:])
    fresh = (given.clamp(0, x.frames) if x.delay else torch.full_like(given, x.frames)) - after
    single = [1] * total.ndim
    new: Tensor = old + (total - old * fresh.reshape(single)) / (given - after).clamp(min=1).reshape(single)
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


def squeeze(stream: StreamInterpreter, node: fx.Node, x: Chunk, dims: int | Sequence[int]) -> Any:
    asked = [d % x.data.ndim for d in ([dims] if isinstance(dims, int) else dims)]
    if min(asked) <= TIME:
        raise Unsupported("removes the axis of time, or one before it")
    return framewise(stream, node, x, dims)


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((*ZERO_PRESERVING_UNARY, *UNARY), framewise),
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys((aten._native_batch_norm_legit_no_training.default, aten.channel_shuffle.default), framewise),
    **dict.fromkeys((aten.clone.default, aten.alias.default, aten.detach.default, aten.pow.Tensor_Scalar), framewise),
    aten.conv3d.default: conv3d,
    aten.conv3d.padding: conv3d,
    aten.max_pool3d.default: max_pool3d,
    aten.avg_pool3d.default: avg_pool3d,
    aten.adaptive_avg_pool3d.default: adaptive_avg_pool3d,
    aten.pad.default: pad_time,
    aten.constant_pad_nd.default: lambda stream, node, x, amounts, value=0: pad_time(stream, node, x, amounts, "constant", value),
    aten.slice.Tensor: slice_time,
    aten.cat.default: cat,
    aten.mean.dim: mean,
    aten.mean.default: mean,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze,
    operator.getitem: lambda stream, node, values, index: values[index],
}
