"""Writes convolutions, pools, interpolation, norms and matrix products as operations of ML Programs."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.targets.common import Pair, check_average, check_sizes, pair
from clipstep.export.targets.coreml_movement import constant_pad, flip, slice_tensor
from clipstep.export.targets.coreml_values import arithmetic, check_constant, computed, constant, reshaped

aten = torch.ops.aten
Function = Callable[..., Any]


def symmetric(padding: Pair) -> list[int]:
    """Return the padding in MIL's order: before and after the rows, before and after the columns."""
    return [amount for amount in pair(padding) for _ in range(2)]


def by_channel(values: Any) -> Any:
    """Return values of the channels in a shape that broadcasts over `(N, C, H, W)`."""
    return reshaped(values, [-1, 1, 1])


def convolution(x: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1) -> Any:
    """Write a convolution. Weights may be computed if they are not dilated."""
    if max(pair(dilation)) > 1:
        check_constant(weight)
    settings = {"strides": pair(stride), "pad_type": "custom", "pad": symmetric(padding), "dilations": pair(dilation), "groups": groups}
    late = computed(bias) or (computed(weight) and bias is not None)
    result = mb.conv(x=x, weight=weight, **settings, **({} if bias is None or late else {"bias": bias}))
    return mb.add(x=result, y=by_channel(bias)) if late else result


def transposed(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Any:
    """Write a transposed convolution. Elements of `output_padding` that no tap reaches are zeros, plus the bias."""
    if computed(weight):
        return _transposed_by_computed_weights(x, weight, bias, pair(stride), pair(padding), pair(output_padding), groups, pair(dilation))
    pads = list(zip(pair(padding), pair(output_padding), strict=True))
    within = [amount for before, more in pads for amount in (before, max(0, before - more))]
    beyond = [amount for before, more in reversed(pads) for amount in (0, max(0, more - before))]
    settings = {"strides": pair(stride), "pad_type": "custom", "pad": within, "dilations": pair(dilation), "groups": groups}
    late = any(beyond) or computed(bias)
    result = mb.conv_transpose(x=x, weight=weight, **settings, **({} if bias is None or late else {"bias": bias}))
    result = constant_pad(result, beyond) if any(beyond) else result
    return result if bias is None or not late else mb.add(x=result, y=by_channel(bias))


def _transposed_by_computed_weights(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Any:
    """Write a convolution of the input with zeros between its elements, because Core ML's transposed convolutions take constants only."""
    channels, out, *kernel = weight.shape
    spread = mb.conv_transpose(x=x, weight=constant(torch.ones(channels, 1, 1, 1)), strides=stride, pad_type="valid", groups=channels)
    before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    after = [amount + more for amount, more in zip(before, output_padding, strict=True)]
    padded = constant_pad(spread, [before[1], after[1], before[0], after[0]])
    by_output = mb.transpose(x=reshaped(weight, [groups, channels // groups, out, math.prod(kernel)]), perm=[0, 2, 1, 3])
    turned = flip(reshaped(by_output, [groups * out, channels // groups, *kernel]), [2, 3])
    return convolution(padded, turned, bias, dilation=dilation, groups=groups)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    if not computed(weight, bias):
        return mb.linear(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    product = matmul(x, weight, transpose_y=True)
    return product if bias is None else mb.add(x=product, y=bias)


def matmul(x: Any, y: Any, *, transpose_y: bool = False) -> Any:
    """Write a matrix product. A vector is written as a matrix of one row or column, because Core ML's reference contradicts itself about vectors."""
    a, b = arithmetic(x, y)
    rows = mb.expand_dims(x=a, axes=[0]) if a.rank == 1 else a
    columns = mb.expand_dims(x=b, axes=[1]) if b.rank == 1 else b
    product = mb.matmul(x=rows, y=columns, **({"transpose_y": True} if transpose_y else {}))
    axes = [*([-2] if rows is not a else []), *([-1] if columns is not b else [])]
    return mb.squeeze(x=product, axes=[axis + product.rank for axis in axes]) if axes else product


def max_pool2d(
    x: Any, kernel: Pair, stride: Pair = (), padding: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False, *, after: Sequence[int]
) -> Any:
    """Write a max pool. If `ceil_mode` lets a window end after the last element, the padding is enlarged instead; padding is never the maximum."""
    kernels, dilations, paddings, strides = pair(kernel), pair(dilation), pair(padding), pair(stride or kernel)
    extents = [(size - 1) * step + 1 for size, step in zip(kernels, dilations, strict=True)]
    sizes = zip(after[-2:], strides, extents, paddings, x.shape[-2:], strict=True)
    trailing = [max(p, (n - 1) * s + k - p - size) for n, s, k, p, size in sizes]
    if max(dilations) == 1:
        pads = [amount for both in zip(paddings, trailing, strict=True) for amount in both]
        return mb.max_pool(x=x, kernel_sizes=kernels, strides=strides, pad_type="custom", pad=pads)
    amounts = [amount for both in zip(reversed(paddings), reversed(trailing), strict=True) for amount in both]
    value = constant_pad(x, amounts, -math.inf) if any(amounts) else x
    for axis, (n, s, taps, step) in enumerate(zip(after[-2:], strides, kernels, dilations, strict=True), x.rank - 2):
        windows = [slice_tensor(value, axis, tap * step, tap * step + (n - 1) * s + 1, s) for tap in range(taps)]
        value = reduce(lambda a, b: mb.maximum(x=a, y=b), windows)
    return value


def avg_pool2d(
    x: Any, kernel: Pair, stride: Pair = (), padding: Pair = 0, ceil_mode: bool = False, count_padding: bool = True, divisor: int | None = None
) -> Any:
    check_average(ceil_mode, divisor)
    settings = {"kernel_sizes": pair(kernel), "strides": pair(stride or kernel), "pad_type": "custom", "pad": symmetric(padding)}
    return mb.avg_pool(x=x, **settings, exclude_padding_from_average=not count_padding)


def bilinear(x: Any, sizes: Any, align_corners: bool, scales: Sequence[float] | None = None, *, after: Sequence[int]) -> Any:
    """Write an interpolation by whole factors, which the lowering leaves as it is."""
    check_sizes(scales)
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS"
    return mb.resize_bilinear(x=x, target_size_height=after[2], target_size_width=after[3], sampling_mode=mode)


def nearest(x: Any, *_: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """Write an interpolation by whole factors, which the lowering leaves as it is."""
    return mb.upsample_nearest_neighbor(x=x, scale_factor_height=after[2] // before[2], scale_factor_width=after[3] // before[3])


def layer_norm(x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    axes = list(range(-len(shape), 0))
    if computed(weight, bias):
        plain = mb.layer_norm(x=x, axes=axes, epsilon=np.float32(eps))
        plain = plain if weight is None else mb.mul(x=plain, y=weight)
        return plain if bias is None else mb.add(x=plain, y=bias)
    gamma = constant(torch.ones(tuple(shape))) if weight is None and bias is not None else weight
    optional = {name: value for name, value in (("gamma", gamma), ("beta", bias)) if value is not None}
    return mb.layer_norm(x=x, axes=axes, epsilon=np.float32(eps), **optional)


OPERATORS: dict[Any, Function] = {
    aten.avg_pool2d.default: avg_pool2d,
    aten.bmm.default: matmul,
    aten.conv2d.default: convolution,
    aten.conv_transpose2d.input: transposed,
    aten.layer_norm.default: layer_norm,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.max_pool2d.default: max_pool2d,
    aten.mm.default: matmul,
    aten.upsample_bilinear2d.vec: bilinear,
    aten.upsample_nearest2d.vec: nearest,
}
