"""The rules by which each operation of a clip network is done on the frames of one step.

A rule is called as `rule(stream, node, *args, **kwargs)`, with the arguments of the ATen operator. It raises `Unsupported` for settings
that it does not cover.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clipstep.export.lowering.operators import named_padding
from clipstep.export.stream import assignments, attention, einsum, framewise, recurrent, rows, summaries
from clipstep.export.stream.framewise import BY_NUMBER
from clipstep.export.stream.interpreter import TIME, Chunk, StreamInterpreter
from clipstep.export.stream.loops import loop
from clipstep.export.stream.rows import each
from clipstep.export.stream.summaries import last, over_time
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
LOWEST = -60000.0
"""The padding of max pools in time: less than any activation, and finite in float16 too."""


def _kernel_output(stream: StreamInterpreter, kernel_input: Chunk, data: Tensor) -> Chunk:
    output = replace(kernel_input, data=data)
    stream.require_frame(output)
    return output


def convolution(
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
    """A convolution along time and one or two other axes."""
    stride, dilation = each(stride, x), each(dilation, x)
    right = None
    if isinstance(padding, str):
        (left, right), *others = named_padding(padding, weight.shape[2:], dilation)
        if any(before != after for before, after in others):
            raise Unsupported("pads its rows or columns unevenly")
        padding = [left, *(before for before, _ in others)]
    padding = each(padding, x)
    frames = stream.kernel_input(x, dilation[0] * (weight.shape[2] - 1) + 1, stride[0], padding[0], padding[0] if right is None else right)
    return _kernel_output(
        stream, frames, (F.conv2d if x.data.ndim == 4 else F.conv3d)(frames.data, weight, bias, stride, (0, *padding[1:]), dilation, groups)
    )


def conv1d(
    stream: StreamInterpreter,
    node: fx.Node,
    x: Chunk,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1,),
    padding: Any = (0,),
    dilation: Any = (1,),
    groups: int = 1,
) -> Chunk:
    """A convolution along time of a sequence `(1, D, T)`, as a 3D convolution."""
    if x.axis != TIME or x.data.ndim != 3:
        raise Unsupported("runs along another axis than time")
    volume = replace(x, data=x.data[..., None, None])
    steps, pads, dilations = ([setting[0], fill, fill] for setting, fill in ((stride, 1), (padding, 0), (dilation, 1)))
    result = convolution(stream, node, volume, weight[..., None, None], bias, steps, pads, dilations, groups)
    return replace(result, data=result.data.flatten(2))


def max_pool(
    stream: StreamInterpreter,
    _: fx.Node,
    x: Chunk,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    dilation: Any = (1,),
    ceil_mode: bool = False,
) -> Chunk:
    kernel, padding, dilation = each(kernel, x), each(padding, x), each(dilation, x)
    stride = each(stride or kernel, x)
    function = F.max_pool2d if x.data.ndim == 4 else F.max_pool3d
    if ceil_mode and stride[0] > 1:
        raise Unsupported("may run over the end of the video (ceil_mode)")
    frames = stream.kernel_input(x, dilation[0] * (kernel[0] - 1) + 1, stride[0], padding[0], padding[0], LOWEST if padding[0] else 0.0)
    return _kernel_output(stream, frames, function(frames.data, kernel, stride, (0, *padding[1:]), dilation, ceil_mode))


def avg_pool(
    stream: StreamInterpreter,
    node: fx.Node,
    x: Chunk,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Any:
    kernel, padding = each(kernel, x), each(padding, x)
    stride = each(stride or kernel, x)
    function = F.avg_pool2d if x.data.ndim == 4 else F.avg_pool3d
    if kernel[0] > 1 and kernel[0] == node.all_input_nodes[0].meta["val"].shape[TIME] and not any(padding) and not divisor and not ceil_mode:
        (x,) = stream.align([x])  # A pool over all frames of the clip, such as F.avg_pool3d(x, x.shape[2:]), is a mean over all of time.
        return over_time(stream, node, replace(x, data=function(x.data, (1, *kernel[1:]), (1, *stride[1:]))))
    if (ceil_mode and stride[0] > 1) or (padding[0] and not count_padding and not divisor):
        raise Unsupported("divides by the number of frames in the window (ceil_mode, or a padding that is not counted)")
    frames = stream.kernel_input(x, kernel[0], stride[0], padding[0], padding[0])
    return _kernel_output(stream, frames, function(frames.data, kernel, stride, (0, *padding[1:]), ceil_mode, count_padding, divisor))


def pad_time(stream: StreamInterpreter, _: fx.Node, x: Chunk, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Chunk:
    """Pad rows and columns as usual. Frames of zeros before or after the video change only the value's `delay` and `extra`, not the step's frames."""
    place = 2 * (x.data.ndim - 1 - x.axis)
    front, back = (*amounts[place : place + 2], 0, 0)[:2]
    within = [*amounts[:place], *([0, 0] if amounts[place + 2 :] else []), *amounts[place + 2 :]]
    if (front or back) and (mode != "constant" or value):
        raise Unsupported("pads time with other values than zeros")
    data = stream.fill_outside(x, 0, 0.0, before=front > 0 and x.delay > 0, after=back > 0)
    return replace(x, data=F.pad(data, within, mode, value) if any(within) else data, delay=x.delay - front, extra=x.extra + front + back)


def slice_any(
    stream: StreamInterpreter, node: fx.Node, x: Chunk, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Chunk | Tensor:
    """A slice of each frame, of time, or the last frame alone."""
    if dim % x.data.ndim != x.axis:
        (x,) = stream.align([x])
        return replace(x, data=aten.slice.Tensor(x.data, dim, start, end, step))
    length = node.all_input_nodes[0].meta["val"].shape[x.axis]
    kept = range(length)[start:end:step]
    if length > 1 and list(kept) == [length - 1]:
        return last(stream, node, x)
    if end is not None and 0 <= end < length:  # Of the number of frames that forward got, as `padded[:, :, :frames.shape[2]]`.
        stream.fixed_length = True
    return x.like_rank5(_slice_of_time(stream, x.rank5, length, kept, step))


def _slice_of_time(stream: StreamInterpreter, x: Chunk, length: int, kept: range, step: int) -> Chunk:
    left_out = (length - 1 - kept.start) // step + 1 - len(kept)
    if left_out and step != 1:
        raise Unsupported("takes every other frame, but not up to the last one")
    frames = stream.kernel_input(x, 1, step, -kept.start, 0)
    late = max(frames.delay, left_out - frames.extra)  # The last frames are left out, and which these are is known late.
    every = Chunk(frames.data[:, :, ::step], frames.delay, frames.extra - left_out)
    return every if late == every.delay else stream.delayed(every, late)


def select(stream: StreamInterpreter, node: fx.Node, x: Chunk, dim: int, index: int) -> Chunk | Tensor:
    """Select an entry of each frame, or the last frame."""
    dim %= x.data.ndim
    if dim != x.axis:
        return replace(x, data=x.data.select(dim, index), axis=x.axis - (dim < x.axis))
    if index % node.all_input_nodes[0].meta["val"].shape[dim] != node.all_input_nodes[0].meta["val"].shape[dim] - 1:
        raise Unsupported(BY_NUMBER)
    return last(stream, node, x).squeeze(dim)


RULES: dict[Any, Callable[..., Any]] = {
    **framewise.RULES,
    **summaries.RULES,
    **recurrent.RULES,
    **attention.RULES,
    **einsum.RULES,
    aten.conv1d.default: conv1d,
    aten.conv3d.default: convolution,
    aten.conv3d.padding: convolution,
    aten.max_pool3d.default: max_pool,
    aten.avg_pool3d.default: avg_pool,
    **dict.fromkeys((aten.conv2d.default, aten.conv2d.padding), rows.or_images(convolution)),
    aten.max_pool2d.default: rows.or_images(max_pool),
    aten.avg_pool2d.default: rows.or_images(avg_pool),
    **dict.fromkeys((aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default), rows.or_images(rows.adaptive_avg_pool2d)),
    aten.pad.default: pad_time,
    aten.constant_pad_nd.default: lambda stream, node, x, amounts, value=0: pad_time(stream, node, x, amounts, "constant", value),
    aten.slice.Tensor: slice_any,
    aten.slice_scatter.default: partial(assignments.assigned, pad_time),
    aten.select.int: select,
    operator.getitem: recurrent.part,
    "call_module": loop,
}
