"""Writes convolutions and matrix products as operators of XNNPACK."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.compat.executorch_internals import schema
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.common import Pair, pair
from clipstep.export.targets.quantization import Quantization
from clipstep.export.targets.xnnpack import NHWC, Clamp, Graph, XnnValue
from clipstep.export.targets.xnnpack_movement import channels_last, constant, expand, permute, with_last_axis
from clipstep.export.unsupported import Unsupported

TILE = 8
"""How many output channels XNNPACK's GEMM kernels compute at a time on ARM64."""


def check_constant(*values: Any) -> None:
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
    check_constant(weight, bias)
    x = channels_last(graph, x)
    batch, *sizes, _ = x.memory
    out_channels, in_group, *kernel = weight.shape
    pads, steps, dilations = pair(padding), pair(stride), pair(dilation)
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip(sizes, pads, dilations, kernel, steps, strict=True))
    depthwise = in_group == 1 and groups > 1
    if groups == 1 and (*kernel, *steps, *pads) == (1, 1, 1, 1, 0, 0) and (wide := _whole_tiles(weight, bias)):
        computed = conv2d(graph, x, *wide, clamp=clamp)
        return graph.cut(computed, (0, 0, 0, 0), (batch, height, width, out_channels))
    return graph.product(
        schema.XNNDepthwiseConv2d if depthwise else schema.XNNConv2d,
        x,
        weight.permute((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)),
        bias,
        (batch, height, width, out_channels),
        NHWC,
        clamp,
        channels=3 if depthwise else 0,
        **_windows(kernel, steps, pads, dilations, (0, 0)),
        group_input_channels=in_group,
        group_output_channels=out_channels // groups,
        groups=groups,
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
    check_constant(weight, bias)
    if any(m >= s for m, s in zip(pair(output_padding), pair(stride), strict=True)):
        raise Unsupported("an `output_padding` that is not below the stride")
    x = channels_last(graph, x)
    batch, *sizes, _ = x.memory
    in_channels, out_group, *kernel = weight.shape
    steps, pads, more, dilations = pair(stride), pair(padding), pair(output_padding), pair(dilation)
    height, width = ((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, d, k, m in zip(sizes, steps, pads, dilations, kernel, more, strict=True))
    filters = weight.reshape(groups, in_channels // groups, out_group, *kernel).permute(0, 2, 3, 4, 1).flatten(0, 1)
    return graph.product(
        schema.XNNConvTranspose2d,
        x,
        filters,
        bias,
        (batch, height, width, groups * out_group),
        NHWC,
        **_windows(kernel, steps, pads, dilations, more),
        group_input_channels=in_channels // groups,
        group_output_channels=out_group,
        groups=groups,
    )


def _windows(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], output_padding: Sequence[int]
) -> dict[str, Any]:
    """Return the fields that say where the kernel of a convolution is placed."""
    return {
        "padding_top": padding[0],
        "padding_bottom": padding[0],
        "padding_left": padding[1],
        "padding_right": padding[1],
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "subsampling_height": stride[0],
        "subsampling_width": stride[1],
        "dilation_height": dilation[0],
        "dilation_width": dilation[1],
        "adjustment_height": output_padding[0],
        "adjustment_width": output_padding[1],
    }


def _whole_tiles(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
    """Pad the weights with zeros to whole tiles of output channels if that adds a fifth at most; otherwise return None.

    For an incomplete tile XNNPACK uses kernels of two channels, which cost twice as much."""
    more = -len(weight) % TILE
    if not more or more * 5 > len(weight):
        return None
    padding = [0, 0] * (weight.ndim - 1) + [0, more]
    return F.pad(weight, padding), None if bias is None else F.pad(bias, (0, more))


def linear(graph: Graph, x: XnnValue, weight: Tensor, bias: Tensor | None = None, clamp: Clamp = None) -> XnnValue:
    check_constant(weight, bias)
    x = with_last_axis(graph, x, len(x.axes) - 1)
    return graph.product(schema.XNNFullyConnected, x, weight, bias, (*x.memory[:-1], len(weight)), x.axes, clamp)


def matmul(graph: Graph, a: Any, b: Any) -> XnnValue:
    """Write a product of matrices or of batches of them, which are broadcast. A product with one constant matrix is a linear layer; of two matrices
    of which the first is constant only in int8, because the transpositions cost more."""
    ranks = [value.ndim if isinstance(value, Tensor) else len(value.axes) for value in (a, b)]
    if min(ranks) < 2:
        raise Unsupported("a vector")
    if isinstance(b, Tensor) and b.ndim == 2:
        return linear(graph, a, b.t())
    if isinstance(a, Tensor) and a.ndim == 2 and (ranks[1] > 2 or isinstance(graph.type, Quantization)):
        swapped = swapped_axes(ranks[1], -2, -1)
        return permute(graph, linear(graph, permute(graph, b, swapped), a), swapped)
    a, b = (constant(graph, value, range(value.ndim)) if isinstance(value, Tensor) else value for value in (a, b))
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (expand(graph, value, (), after=(*leading, *value.shape[-2:])) for value in (a, b))
    first, second = (graph.to_layout(value, range(len(value.axes))) for value in (a, b))
    memory = (*first.memory[:-1], second.memory[-1])
    return graph.add(schema.XNNBatchMatrixMultiply, memory, range(len(memory)), input1_id=first.number, input2_id=second.number)
