"""PyTorch's operations as XNNPACK's: one small function each."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.compat.executorch_internals import flags, schema
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.common import IDENTITY, Pair, pair
from clipstep.export.targets.xnnpack import NHWC, NONE, Clamp, Graph, XnnValue
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
TILE = 8
INFINITY = float("inf")


def _between(low: float | None = None, high: float | None = None) -> tuple[float, float]:
    return (-INFINITY if low is None else low, INFINITY if high is None else high)


def xnn_value(value: Any) -> XnnValue:
    if not isinstance(value, XnnValue):
        raise Unsupported("an operation on a constant")
    return value


def _constants(*values: Any) -> None:
    if any(isinstance(value, XnnValue) for value in values):
        raise Unsupported("weights that are computed")


def conv2d(
    graph: Graph,
    x: XnnValue,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    clamp: Clamp = None,
) -> XnnValue:
    _constants(weight, bias)
    x = graph.to_layout(x, NHWC)
    batch, *sizes, _ = x.memory
    out_channels, in_group, *kernel = weight.shape
    pads, steps, dilations = pair(padding), pair(stride), pair(dilation)
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip(sizes, pads, dilations, kernel, steps, strict=True))
    depthwise = in_group == 1 and groups > 1
    if groups == 1 and (*kernel, *steps, *pads) == (1, 1, 1, 1, 0, 0) and (wide := _whole_tiles(weight, bias)):
        computed = conv2d(graph, x, *wide, clamp=clamp)
        return graph.cut(computed, (0, 0, 0, 0), (batch, height, width, out_channels))
    return graph.add(
        schema.XNNDepthwiseConv2d if depthwise else schema.XNNConv2d,
        (batch, height, width, out_channels),
        NHWC,
        clamp,
        padding_top=pads[0],
        padding_bottom=pads[0],
        padding_left=pads[1],
        padding_right=pads[1],
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        subsampling_height=steps[0],
        subsampling_width=steps[1],
        dilation_height=dilations[0],
        dilation_width=dilations[1],
        group_input_channels=in_group,
        group_output_channels=out_channels // groups,
        groups=groups,
        adjustment_height=0,
        adjustment_width=0,
        input1_id=x.number,
        filter_id=graph.constant(weight.permute((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))),
        bias_id=NONE if bias is None else graph.constant(bias),
    )


def _whole_tiles(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
    """The weights padded with zeros to whole tiles of output channels, if that adds a fifth at most: for other numbers XNNPACK takes kernels of
    two channels, which cost twice as much."""
    more = -len(weight) % TILE
    if not more or more * 5 > len(weight):
        return None
    padding = [0, 0] * (weight.ndim - 1) + [0, more]
    return F.pad(weight, padding), None if bias is None else F.pad(bias, (0, more))


def linear(graph: Graph, x: XnnValue, weight: Tensor, bias: Tensor | None = None, clamp: Clamp = None) -> XnnValue:
    _constants(weight, bias)
    x = _last(graph, x, len(x.axes) - 1)
    return graph.add(
        schema.XNNFullyConnected,
        (*x.memory[:-1], len(weight)),
        x.axes,
        clamp,
        input1_id=x.number,
        filter_id=graph.constant(weight),
        bias_id=NONE if bias is None else graph.constant(bias),
    )


def matmul(graph: Graph, a: XnnValue, b: XnnValue | Tensor) -> XnnValue:
    if isinstance(b, Tensor) and b.ndim == 2:
        return linear(graph, a, b.t())
    a, b = (_constant(graph, value, range(value.ndim)) if isinstance(value, Tensor) else value for value in (a, b))
    if len(a.axes) != len(b.axes) or a.shape[:-2] != b.shape[:-2]:
        raise Unsupported("a product of matrices of different batches")
    first, second = (graph.to_layout(value, range(len(value.axes))) for value in (a, b))
    memory = (*first.memory[:-1], second.memory[-1])
    return graph.add(schema.XNNBatchMatrixMultiply, memory, range(len(memory)), input1_id=first.number, input2_id=second.number)


def binary(operation: Any) -> Callable[..., XnnValue]:
    def write(graph: Graph, a: Any, b: Any, clamp: Clamp = None) -> XnnValue:
        like = _largest([value for value in (a, b) if isinstance(value, XnnValue)])
        (first, shape), (second, other) = (graph.operand(value, like) for value in (a, b))
        memory = [max(sizes) for sizes in zip(shape, other, strict=True)]
        return graph.add(operation, memory, like.axes, clamp, input1_id=first, input2_id=second)

    return write


def reversed_subtraction(graph: Graph, a: XnnValue, b: Any) -> XnnValue:
    return binary(schema.XNNSubtract)(graph, b, a)


def _largest(values: Sequence[XnnValue]) -> XnnValue:
    """The largest of several values, and of equally large ones that which is channels last."""
    return max(values, key=lambda value: (len(value.axes), math.prod(value.memory), value.axes == NHWC))


def unary(operation: Any, **fields: Any) -> Callable[..., XnnValue]:
    return lambda graph, x: graph.elementwise(operation, x, **fields)


def leaky_relu(graph: Graph, x: XnnValue, slope: float = 0.01) -> XnnValue:
    return unary(schema.XNNLeakyReLU, negative_slope=float(slope))(graph, x)


def elu(graph: Graph, x: XnnValue, alpha: float = 1.0) -> XnnValue:
    return unary(schema.XNNELU, alpha=float(alpha))(graph, x)


def gelu(graph: Graph, x: XnnValue, approximate: str = "none") -> XnnValue:
    if approximate != "none":
        raise Unsupported("an approximate GELU")
    return unary(schema.XNNGelu)(graph, x)


def hard_sigmoid(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNAdd)(graph, binary(schema.XNNMultiply)(graph, x, 1 / 6), 0.5, (0.0, 1.0))


def silu(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNMultiply)(graph, x, unary(schema.XNNSigmoid)(graph, x))


def clamp_writer(target: Any) -> Callable[..., XnnValue]:
    def write(graph: Graph, x: XnnValue, *given: float) -> XnnValue:
        return graph.elementwise(schema.XNNClamp, x, CLAMPS[target](*given))

    return write


def softmax(graph: Graph, x: XnnValue, dim: int, dtype: Any = None) -> XnnValue:
    x = _last(graph, x, dim % len(x.axes))
    return graph.add(schema.XNNSoftmax, x.memory, x.axes, input_id=x.number)


def _last(graph: Graph, x: XnnValue, axis: int) -> XnnValue:
    """The value in a layout in which an axis is the last one in memory."""
    return x if x.axes[-1] == axis else graph.to_layout(x, [*(other for other in x.axes if other != axis), axis])


def cat(graph: Graph, values: Sequence[Any], dim: int = 0) -> XnnValue:
    axes = _largest([value for value in values if isinstance(value, XnnValue)]).axes
    parts = [graph.to_layout(value, axes) if isinstance(value, XnnValue) else _constant(graph, value, axes) for value in values]
    place = axes.index(dim % len(axes))
    most = max(CONCATENATIONS)

    def joined(some: Sequence[XnnValue]) -> XnnValue:
        memory = list(some[0].memory)
        memory[place] = sum(part.memory[place] for part in some)
        numbers = [part.number for part in some] + [NONE] * (most - len(some))
        ids = {f"input{i}_id": number for i, number in enumerate(numbers, start=1)}
        return graph.add(CONCATENATIONS[len(some)], memory, axes, axis=place, **ids)

    while len(parts) > most:  # No more are joined first than must be: each time copies them once more.
        first: list[XnnValue] = []
        rest = parts
        while rest and len(first) + len(rest) > most:
            count = min(most, len(first) + len(rest) - most + 1)
            first.append(joined(rest[:count]) if count > 1 else rest[0])
            rest = rest[count:]
        parts = first + rest
    return joined(parts) if len(parts) > 1 else parts[0]


def _constant(graph: Graph, tensor: Tensor, axes: Sequence[int]) -> XnnValue:
    moved = tensor.permute(tuple(axes))
    return XnnValue(graph.constant(moved), tuple(moved.shape), tuple(axes))


def slice_tensor(graph: Graph, x: XnnValue, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> XnnValue:
    place = x.axes.index(dim % len(x.axes))
    kept = range(x.memory[place])[start:end:step]
    if step != 1:
        raise Unsupported("a slice with steps")
    starts, sizes = [0] * len(x.memory), list(x.memory)
    starts[place], sizes[place] = kept.start, len(kept)
    return graph.cut(x, starts, sizes)


def select(graph: Graph, x: XnnValue, dim: int, index: int) -> XnnValue:
    dim, index = dim % len(x.axes), index % x.shape[dim]
    return graph.reshape(slice_tensor(graph, x, dim, index, index + 1), x.shape[:dim] + x.shape[dim + 1 :])


def contiguous(graph: Graph, x: XnnValue, memory_format: Any = None) -> XnnValue:
    return graph.to_layout(x, range(len(x.axes)))


def permute(_: Graph, x: XnnValue, dims: Sequence[int]) -> XnnValue:
    dims = [dim % len(x.axes) for dim in dims]
    return XnnValue(x.number, x.memory, tuple(dims.index(axis) for axis in x.axes))


def transpose(graph: Graph, x: XnnValue, first: int, second: int) -> XnnValue:
    return permute(graph, x, swapped_axes(len(x.axes), first, second))


def pad(graph: Graph, x: XnnValue, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> XnnValue:
    if mode != "constant" or any(amount < 0 for amount in amounts):
        raise Unsupported("a padding that is not with a constant")
    if not any(amounts):
        return x
    before, behind = [0] * len(x.axes), [0] * len(x.axes)
    for i in range(len(amounts) // 2):
        place = x.axes.index(len(x.axes) - 1 - i)
        before[place], behind[place] = amounts[2 * i], amounts[2 * i + 1]
    memory = [size + a + b for size, a, b in zip(x.memory, before, behind, strict=True)]
    last = max((place for place in range(len(memory)) if before[place] or behind[place]), default=-1)
    # Padding goes row by row of the last axis: what is not padded joins the axis before it.
    inner = math.prod(x.memory[last + 1 :])
    joined = graph.reshape(XnnValue(x.number, x.memory, tuple(range(len(memory)))), (*x.memory[:last], x.memory[last] * inner))
    before, behind = ([*counts[:last], counts[last] * inner] for counts in (before, behind))
    padded = graph.add(
        schema.XNNStaticConstantPad,
        (*memory[:last], memory[last] * inner),
        range(last + 1),
        pre_paddings=before,
        post_paddings=behind,
        padding_value=float(value or 0),
        input_id=joined.number,
    )
    return XnnValue(graph.reshape(padded, memory).number, tuple(memory), x.axes)


def pixel_unshuffle(graph: Graph, x: XnnValue, factor: int) -> XnnValue:
    batch, channels, height, width = x.shape
    split = graph.reshape(x, (batch, channels, height // factor, factor, width // factor, factor))
    moved = permute(graph, split, (0, 1, 3, 5, 2, 4))
    return graph.reshape(moved, (batch, channels * factor**2, height // factor, width // factor))


def max_pool2d(
    graph: Graph, x: XnnValue, kernel: Pair, stride: Pair = (), padding: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False, clamp: Clamp = None
) -> XnnValue:
    """What a last window has over the end is more padding there, which never is the maximum."""
    x = graph.to_layout(x, NHWC)
    batch, *lengths, channels = x.memory
    kernels, pads, dilations = pair(kernel), pair(padding), pair(dilation)
    steps = pair(stride or kernel)
    sizes, behind = [], []
    for n, k, s, p, d in zip(lengths, kernels, steps, pads, dilations, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        more = ceil_mode and room % s > 0 and (room // s + 1) * s < n + p
        sizes.append(room // s + 1 + more)
        behind.append(p + (s - room % s if more else 0))
    return graph.add(
        schema.XNNMaxPooling2d,
        (batch, *sizes, channels),
        NHWC,
        clamp,
        padding_top=pads[0],
        padding_left=pads[1],
        padding_bottom=behind[0],
        padding_right=behind[1],
        pooling_height=kernels[0],
        pooling_width=kernels[1],
        stride_height=steps[0],
        stride_width=steps[1],
        dilation_height=dilations[0],
        dilation_width=dilations[1],
        input_id=x.number,
        flags=flags.XNN_FLAG_KEEP_DIMS,
    )


def avg_pool2d(
    graph: Graph,
    x: XnnValue,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> XnnValue:
    if ceil_mode or any(pair(padding)) or divisor:
        raise Unsupported("an average pool with padding")
    x = graph.to_layout(x, NHWC)
    batch, *lengths, channels = x.memory
    kernels, steps = pair(kernel), pair(stride or kernel)
    sizes = [(n - k) // s + 1 for n, k, s in zip(lengths, kernels, steps, strict=True)]
    if list(kernels) == lengths:
        return mean(graph, XnnValue(x.number, x.memory, NHWC), (2, 3), keep=True)
    return graph.add(
        schema.XNNAvgPooling2d,
        (batch, *sizes, channels),
        NHWC,
        padding_top=0,
        padding_left=0,
        padding_bottom=0,
        padding_right=0,
        pooling_height=kernels[0],
        pooling_width=kernels[1],
        stride_height=steps[0],
        stride_width=steps[1],
        dilation_height=0,
        dilation_width=0,
        input_id=x.number,
        flags=flags.XNN_FLAG_KEEP_DIMS,
    )


def mean(graph: Graph, x: XnnValue, dims: Any = None, keep: bool = False, dtype: Any = None) -> XnnValue:
    """Over axes that lie side by side in memory, or are brought there, as the mean of a plane of the rest."""
    rank = len(x.axes)
    gone = set(range(rank)) if not dims and dims != 0 else {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}
    places = [place for place, axis in enumerate(x.axes) if axis in gone]
    if places != list(range(places[0], places[-1] + 1)):
        x = graph.to_layout(x, [*(axis for axis in x.axes if axis not in gone), *sorted(gone)])
        places = list(range(rank - len(gone), rank))
    outer, inner = math.prod(x.memory[: places[0]]), math.prod(x.memory[places[-1] + 1 :])
    plane = XnnValue(x.number, x.memory, tuple(range(rank)))
    plane = graph.reshape(plane, (outer, math.prod(x.memory) // outer // inner, 1, inner))
    pooled = graph.add(schema.XNNGlobalAvgPooling2d, (outer, 1, 1, inner), range(4), input_id=plane.number, flags=flags.XNN_FLAG_KEEP_DIMS)
    kept = graph.reshape(pooled, [1 if axis in gone else size for axis, size in zip(x.axes, x.memory, strict=True)])
    result = XnnValue(kept.number, kept.memory, x.axes)
    return result if keep else graph.reshape(result, [size for axis, size in enumerate(result.shape) if axis not in gone])


def total(graph: Graph, x: XnnValue, dims: Any = None, keep: bool = False, dtype: Any = None) -> XnnValue:
    averaged = mean(graph, x, dims, keep)
    return binary(schema.XNNMultiply)(graph, averaged, float(math.prod(x.memory) // math.prod(averaged.memory)))


def resize(graph: Graph, x: XnnValue, sizes: Sequence[int] | None, align_corners: bool, *scales: Any) -> XnnValue:
    if sizes is None:
        factors = scales[0] if len(scales) == 1 else scales
        sizes = [int(n * factor) for n, factor in zip(x.shape[2:], factors, strict=True)]
    x = graph.to_layout(x, NHWC)
    height, width = sizes
    return graph.add(
        schema.XNNStaticResizeBilinear2D,
        (x.memory[0], height, width, x.memory[3]),
        NHWC,
        new_height=height,
        new_width=width,
        input_id=x.number,
        flags=flags.XNN_FLAG_ALIGN_CORNERS if align_corners else 0,
    )


def power(graph: Graph, x: XnnValue, exponent: float) -> XnnValue:
    if exponent != 2:
        raise Unsupported("a power that is not a square")
    return unary(schema.XNNSquare)(graph, x)


def identity(_: Graph, x: XnnValue, *args: Any, **kwargs: Any) -> XnnValue:
    return x


CONCATENATIONS = {2: schema.XNNConcatenate2, 3: schema.XNNConcatenate3, 4: schema.XNNConcatenate4, 5: schema.XNNConcatenate5}
CLAMPS: dict[Any, Callable[..., tuple[float, float]]] = {
    aten.relu.default: lambda: (0.0, INFINITY),
    aten.relu6.default: lambda: (0.0, 6.0),
    aten.hardtanh.default: lambda low=-1.0, high=1.0: (low, high),
    aten.clamp.default: _between,
    aten.clamp_min.default: lambda low: (low, INFINITY),
    aten.clamp_max.default: lambda high: (-INFINITY, high),
}
WRITERS: dict[Any, Callable[..., XnnValue]] = {
    **{target: clamp_writer(target) for target in CLAMPS},
    **dict.fromkeys(IDENTITY, identity),
    aten.conv2d.default: conv2d,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.mm.default: matmul,
    aten.bmm.default: matmul,
    aten.add.Tensor: binary(schema.XNNAdd),
    aten.sub.Tensor: binary(schema.XNNSubtract),
    aten.rsub.Scalar: reversed_subtraction,
    aten.mul.Tensor: binary(schema.XNNMultiply),
    aten.div.Tensor: binary(schema.XNNDiv),
    aten.maximum.default: binary(schema.XNNMaximum),
    aten.minimum.default: binary(schema.XNNMinimum),
    aten.sigmoid.default: unary(schema.XNNSigmoid),
    aten.tanh.default: unary(schema.XNNTanh),
    aten.hardswish.default: unary(schema.XNNHardswish),
    aten.exp.default: unary(schema.XNNExp),
    aten.log.default: unary(schema.XNNLog),
    aten.sqrt.default: unary(schema.XNNSquareRoot),
    aten.rsqrt.default: unary(schema.XNNReciprocalSquareRoot),
    aten.abs.default: unary(schema.XNNAbs),
    aten.neg.default: unary(schema.XNNNegate),
    aten.leaky_relu.default: leaky_relu,
    aten.elu.default: elu,
    aten.gelu.default: gelu,
    aten.silu.default: silu,
    aten.hardsigmoid.default: hard_sigmoid,
    aten.pow.Tensor_Scalar: power,
    aten.softmax.int: softmax,
    aten.cat.default: cat,
    aten.slice.Tensor: slice_tensor,
    aten.select.int: select,
    aten.contiguous.default: contiguous,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: lambda graph, x, amounts, value=0.0: pad(graph, x, amounts, "constant", value),
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.max_pool2d.default: max_pool2d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.mean.dim: mean,
    aten.sum.dim_IntList: total,
    aten.upsample_bilinear2d.vec: resize,
}
