"""Writes pools, reductions, interpolation, softmax and layer norms as operators of XNNPACK."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.executorch_internals import flags, schema
from clipstep.export.targets.common import Pair, check_average, check_result, check_sizes, pair
from clipstep.export.targets.xnnpack import NHWC, Clamp, Graph, XnnValue
from clipstep.export.targets.xnnpack_elementwise import binary, unary
from clipstep.export.targets.xnnpack_movement import channels_last, with_last_axis
from clipstep.export.unsupported import Unsupported


def softmax(graph: Graph, x: XnnValue, dim: int, dtype: torch.dtype | None = None) -> XnnValue:
    check_result(dtype)
    x = with_last_axis(graph, x, dim % len(x.axes))
    return graph.add(schema.XNNSoftmax, x.memory, x.axes, input_id=x.number)


def max_pool2d(
    graph: Graph, x: XnnValue, kernel: Pair, stride: Pair = (), padding: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False, clamp: Clamp = None
) -> XnnValue:
    """Write a max pool. If `ceil_mode` lets a window end after the last element, the padding is enlarged instead; padding is never the maximum."""
    x = channels_last(graph, x)
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
        like=x.number,
        **_windows(kernels, steps, (*pads, *trailing), dilations),
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
    check_average(ceil_mode, divisor)
    if any(pair(padding)):
        raise Unsupported("`padding`")
    x = channels_last(graph, x)
    batch, *lengths, channels = x.memory
    kernels, steps = pair(kernel), pair(stride or kernel)
    sizes = [(n - k) // s + 1 for n, k, s in zip(lengths, kernels, steps, strict=True)]
    if list(kernels) == lengths:
        return _mean(graph, XnnValue(x.number, x.memory, NHWC), (2, 3), keep=True)
    return graph.add(
        schema.XNNAvgPooling2d,
        (batch, *sizes, channels),
        NHWC,
        **_windows(kernels, steps, (0, 0, 0, 0), (0, 0)),
        input_id=x.number,
        flags=flags.XNN_FLAG_KEEP_DIMS,
    )


def _windows(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> dict[str, Any]:
    """Return the fields that say where the windows of a pool are placed; `padding` is that of the top, the left, the bottom and the right."""
    return {
        "padding_top": padding[0],
        "padding_left": padding[1],
        "padding_bottom": padding[2],
        "padding_right": padding[3],
        "pooling_height": kernel[0],
        "pooling_width": kernel[1],
        "stride_height": stride[0],
        "stride_width": stride[1],
        "dilation_height": dilation[0],
        "dilation_width": dilation[1],
    }


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
    after: Sequence[int],
) -> XnnValue:
    check_sizes(scales)
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
