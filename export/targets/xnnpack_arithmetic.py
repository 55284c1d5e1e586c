"""Writes the ATen operators that do arithmetic as operators of XNNPACK: one small function for each."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.compat.executorch_internals import flags, schema
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.common import Pair, check_result, check_scales, pair
from clipstep.export.targets.xnnpack import NHWC, NONE, Clamp, Graph, XnnValue
from clipstep.export.targets.xnnpack_movement import constant, expand, largest, permute, with_last_axis
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
TILE = 8
"""How many output channels XNNPACK's GEMM kernels compute at a time on ARM64."""
INFINITY = float("inf")


def _between(low: float | None = None, high: float | None = None) -> tuple[float, float]:
    return (-INFINITY if low is None else low, INFINITY if high is None else high)


CLAMPS: dict[Any, Callable[..., tuple[float, float]]] = {
    aten.relu.default: lambda: (0.0, INFINITY),
    aten.relu6.default: lambda: (0.0, 6.0),
    aten.hardtanh.default: lambda low=-1.0, high=1.0: (low, high),
    aten.clamp.default: _between,
    aten.clamp_min.default: lambda low: (low, INFINITY),
    aten.clamp_max.default: lambda high: (-INFINITY, high),
}


def _check_constant(*values: Any) -> None:
    if any(isinstance(value, XnnValue) for value in values):
        raise Unsupported("weights that are computed")


def _channels_last(graph: Graph, x: XnnValue) -> XnnValue:
    if len(x.axes) != len(NHWC):
        raise Unsupported("a value without a batch axis")
    return graph.to_layout(x, NHWC)


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
    _check_constant(weight, bias)
    x = _channels_last(graph, x)
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


def conv_transpose2d(
    graph: Graph,
    x: XnnValue,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> XnnValue:
    _check_constant(weight, bias)
    if any(m >= s for m, s in zip(pair(output_padding), pair(stride), strict=True)):
        raise Unsupported("an `output_padding` that is not below the stride")
    x = _channels_last(graph, x)
    batch, *sizes, _ = x.memory
    in_channels, out_group, *kernel = weight.shape
    steps, pads, more, dilations = pair(stride), pair(padding), pair(output_padding), pair(dilation)
    height, width = ((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, d, k, m in zip(sizes, steps, pads, dilations, kernel, more, strict=True))
    filters = weight.reshape(groups, in_channels // groups, out_group, *kernel).permute(0, 2, 3, 4, 1).flatten(0, 1)
    return graph.add(
        schema.XNNConvTranspose2d,
        (batch, height, width, groups * out_group),
        NHWC,
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
        group_input_channels=in_channels // groups,
        group_output_channels=out_group,
        groups=groups,
        adjustment_height=more[0],
        adjustment_width=more[1],
        input1_id=x.number,
        filter_id=graph.constant(filters),
        bias_id=NONE if bias is None else graph.constant(bias),
    )


def _whole_tiles(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
    """Pad the weights with zeros to whole tiles of output channels if that adds a fifth at most; otherwise return None.

    For an incomplete tile XNNPACK uses kernels of two channels, which cost twice as much."""
    more = -len(weight) % TILE
    if not more or more * 5 > len(weight):
        return None
    padding = [0, 0] * (weight.ndim - 1) + [0, more]
    return F.pad(weight, padding), None if bias is None else F.pad(bias, (0, more))


def linear(graph: Graph, x: XnnValue, weight: Tensor, bias: Tensor | None = None, clamp: Clamp = None) -> XnnValue:
    _check_constant(weight, bias)
    x = with_last_axis(graph, x, len(x.axes) - 1)
    return graph.add(
        schema.XNNFullyConnected,
        (*x.memory[:-1], len(weight)),
        x.axes,
        clamp,
        input1_id=x.number,
        filter_id=graph.constant(weight),
        bias_id=NONE if bias is None else graph.constant(bias),
    )


def matmul(graph: Graph, a: Any, b: Any) -> XnnValue:
    """Write a product of matrices or of batches of them, which are broadcast. A product with one constant matrix is a linear layer."""
    ranks = [value.ndim if isinstance(value, Tensor) else len(value.axes) for value in (a, b)]
    if min(ranks) < 2:
        raise Unsupported("a vector")
    if isinstance(b, Tensor) and b.ndim == 2:
        return linear(graph, a, b.t())
    if isinstance(a, Tensor) and a.ndim == 2 and ranks[1] > 2:
        swapped = swapped_axes(ranks[1], -2, -1)
        return permute(graph, linear(graph, permute(graph, b, swapped), a), swapped)
    a, b = (constant(graph, value, range(value.ndim)) if isinstance(value, Tensor) else value for value in (a, b))
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (expand(graph, value, (), after=(*leading, *value.shape[-2:])) for value in (a, b))
    first, second = (graph.to_layout(value, range(len(value.axes))) for value in (a, b))
    memory = (*first.memory[:-1], second.memory[-1])
    return graph.add(schema.XNNBatchMatrixMultiply, memory, range(len(memory)), input1_id=first.number, input2_id=second.number)


def binary(operation: Any) -> Callable[..., XnnValue]:
    def write(graph: Graph, a: Any, b: Any, clamp: Clamp = None) -> XnnValue:
        like = largest([value for value in (a, b) if isinstance(value, XnnValue)])
        rank = max(value.ndim if isinstance(value, Tensor) else 0 for value in (a, b))
        if rank > len(like.axes):  # The constant has more axes than the value.
            like = graph.reshape(like, (*[1] * (rank - len(like.axes)), *like.shape))
            a, b = (like if isinstance(value, XnnValue) else value for value in (a, b))
        (first, shape), (second, other) = (graph.operand(value, like) for value in (a, b))
        memory = [max(sizes) for sizes in zip(shape, other, strict=True)]
        return graph.add(operation, memory, like.axes, clamp, input1_id=first, input2_id=second)

    return write


def scaled(operation: Any) -> Callable[..., XnnValue]:
    """Return the function that writes an addition or subtraction of `b * alpha`."""

    def write(graph: Graph, a: Any, b: Any, clamp: Clamp = None, alpha: float = 1) -> XnnValue:
        if alpha != 1:
            b = binary(schema.XNNMultiply)(graph, b, float(alpha)) if isinstance(b, XnnValue) else b * alpha
        return binary(operation)(graph, a, b, clamp)

    return write


def reversed_subtraction(graph: Graph, a: XnnValue, b: Any, alpha: float = 1) -> XnnValue:
    return scaled(schema.XNNSubtract)(graph, b, a, alpha=alpha)


def reciprocal(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNDiv)(graph, 1.0, x)


def unary(operation: Any, **fields: Any) -> Callable[..., XnnValue]:
    return lambda graph, x: graph.elementwise(operation, x, **fields)


def leaky_relu(graph: Graph, x: XnnValue, slope: float = 0.01) -> XnnValue:
    return unary(schema.XNNLeakyReLU, negative_slope=float(slope))(graph, x)


def elu(graph: Graph, x: XnnValue, alpha: float = 1.0) -> XnnValue:
    return unary(schema.XNNELU, alpha=float(alpha))(graph, x)


def gelu(graph: Graph, x: XnnValue, approximate: str = "none") -> XnnValue:
    if approximate != "none":
        raise Unsupported("the approximation by tanh")
    return unary(schema.XNNGelu)(graph, x)


def hard_sigmoid(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNAdd)(graph, binary(schema.XNNMultiply)(graph, x, 1 / 6), 0.5, (0.0, 1.0))


def silu(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNMultiply)(graph, x, unary(schema.XNNSigmoid)(graph, x))


def clamp_writer(target: Any) -> Callable[..., XnnValue]:
    def write(graph: Graph, x: XnnValue, *given: float) -> XnnValue:
        return graph.elementwise(schema.XNNClamp, x, CLAMPS[target](*given))

    return write


def softmax(graph: Graph, x: XnnValue, dim: int, dtype: torch.dtype | None = None) -> XnnValue:
    check_result(dtype)
    x = with_last_axis(graph, x, dim % len(x.axes))
    return graph.add(schema.XNNSoftmax, x.memory, x.axes, input_id=x.number)


def max_pool2d(
    graph: Graph, x: XnnValue, kernel: Pair, stride: Pair = (), padding: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False, clamp: Clamp = None
) -> XnnValue:
    """Write a max pool. If `ceil_mode` lets a window end after the last element, the padding is enlarged instead; padding is never the maximum."""
    x = _channels_last(graph, x)
    batch, *lengths, channels = x.memory
    kernels, pads, dilations = pair(kernel), pair(padding), pair(dilation)
    steps = pair(stride or kernel)
    sizes, trailing = [], []
    for n, k, s, p, d in zip(lengths, kernels, steps, pads, dilations, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        more = ceil_mode and room % s > 0 and (room // s + 1) * s < n + p
        sizes.append(room // s + 1 + more)
        trailing.append(p + (s - room % s if more else 0))
    return graph.add(
        schema.XNNMaxPooling2d,
        (batch, *sizes, channels),
        NHWC,
        clamp,
        padding_top=pads[0],
        padding_left=pads[1],
        padding_bottom=trailing[0],
        padding_right=trailing[1],
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
    if any(pair(padding)):
        raise Unsupported("`padding`")
    if ceil_mode:
        raise Unsupported("`ceil_mode`")
    if divisor:
        raise Unsupported("`divisor_override`")
    x = _channels_last(graph, x)
    batch, *lengths, channels = x.memory
    kernels, steps = pair(kernel), pair(stride or kernel)
    sizes = [(n - k) // s + 1 for n, k, s in zip(lengths, kernels, steps, strict=True)]
    if list(kernels) == lengths:
        return _mean(graph, XnnValue(x.number, x.memory, NHWC), (2, 3), keep=True)
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


def mean(graph: Graph, x: XnnValue, dims: Any = None, keep: bool = False, dtype: torch.dtype | None = None) -> XnnValue:
    check_result(dtype)
    return _mean(graph, x, dims, keep)


def _mean(graph: Graph, x: XnnValue, dims: Any, keep: bool) -> XnnValue:
    """Compute a mean by XNNPACK's global average pool."""

    def pool(plane: XnnValue) -> XnnValue:
        outer, _, _, inner = plane.memory
        return graph.add(schema.XNNGlobalAvgPooling2d, (outer, 1, 1, inner), range(4), input_id=plane.number, flags=flags.XNN_FLAG_KEEP_DIMS)

    return _reduced(graph, x, dims, keep, pool)


def _reduced(graph: Graph, x: XnnValue, dims: Any, keep: bool, pool: Callable[[XnnValue], XnnValue]) -> XnnValue:
    """Make the axes adjacent in memory and join them to rows, so that `pool`, of a value `(outer, rows, 1, inner)`, reduces them."""
    rank = len(x.axes)
    gone = set(range(rank)) if not dims and dims != 0 else {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}
    places = [place for place, axis in enumerate(x.axes) if axis in gone]
    if places != list(range(places[0], places[-1] + 1)):
        x = graph.to_layout(x, [*(axis for axis in x.axes if axis not in gone), *sorted(gone)])
        places = list(range(rank - len(gone), rank))
    outer, inner = math.prod(x.memory[: places[0]]), math.prod(x.memory[places[-1] + 1 :])
    plane = XnnValue(x.number, x.memory, tuple(range(rank)))
    plane = graph.reshape(plane, (outer, math.prod(x.memory) // outer // inner, 1, inner))
    kept = graph.reshape(pool(plane), [1 if axis in gone else size for axis, size in zip(x.axes, x.memory, strict=True)])
    result = XnnValue(kept.number, kept.memory, x.axes)
    return result if keep else graph.reshape(result, [size for axis, size in enumerate(result.shape) if axis not in gone])


def largest_of(graph: Graph, x: XnnValue, dims: Any = (), keep: bool = False) -> XnnValue:
    """Compute a maximum along axes by a max pool of one window."""

    def pool(plane: XnnValue) -> XnnValue:
        return plane if plane.memory[1] == 1 else max_pool2d(graph, XnnValue(plane.number, plane.memory, NHWC), (plane.memory[1], 1))

    return _reduced(graph, x, dims, keep, pool)


def smallest_of(graph: Graph, x: XnnValue, dims: Any = (), keep: bool = False) -> XnnValue:
    negate = unary(schema.XNNNegate)
    return negate(graph, largest_of(graph, negate(graph, x), dims, keep))


def total(graph: Graph, x: XnnValue, dims: Any = None, keep: bool = False, dtype: torch.dtype | None = None) -> XnnValue:
    averaged = mean(graph, x, dims, keep, dtype)
    return binary(schema.XNNMultiply)(graph, averaged, float(math.prod(x.memory) // math.prod(averaged.memory)))


def layer_norm(
    graph: Graph, x: XnnValue, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, epsilon: float = 1e-5, *_: Any
) -> XnnValue:
    """Write a layer norm as a formula, (x - mean) / sqrt(variance + epsilon) * weight + bias."""
    axes = tuple(range(-len(shape), 0))
    subtract, multiply, add = (binary(operation) for operation in (schema.XNNSubtract, schema.XNNMultiply, schema.XNNAdd))
    centred = subtract(graph, x, _mean(graph, x, axes, True))
    variance = _mean(graph, unary(schema.XNNSquare)(graph, centred), axes, True)
    result = multiply(graph, centred, unary(schema.XNNReciprocalSquareRoot)(graph, add(graph, variance, float(epsilon))))
    result = result if weight is None else multiply(graph, result, weight)
    return result if bias is None else add(graph, result, bias)


def resize(
    graph: Graph,
    x: XnnValue,
    sizes: Any,
    align_corners: bool,
    scales: Sequence[float] | None = None,
    *,
    before: Sequence[int],
    after: Sequence[int],
) -> XnnValue:
    check_scales(scales, align_corners, before, after)
    x = graph.to_layout(x, NHWC)
    height, width = after[2:]
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
        raise Unsupported("an exponent other than 2")
    return unary(schema.XNNSquare)(graph, x)
