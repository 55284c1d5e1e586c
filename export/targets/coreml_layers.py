"""Writes convolutions, pools, norms, matrix products and attention as operations of ML Programs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn import functional as F

from clipstep.export.targets.common import Pair, pair
from clipstep.export.targets.coreml_elementwise import multiply, of
from clipstep.export.targets.coreml_movement import constant_pad, slice_tensor
from clipstep.export.targets.coreml_values import arithmetic, check_constant, choose, computed, constant, expanded, kind, reshaped
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Function = Callable[..., Any]
Numbers = int | Sequence[int]


def every(values: Numbers, count: int) -> list[int]:
    """Return a setting for each of `count` axes."""
    given = [values] if isinstance(values, int) else list(values)
    return given * count if len(given) == 1 else given


def symmetric(padding: Numbers, count: int = 2) -> list[int]:
    """Return the padding in MIL's order: before and after the rows, before and after the columns."""
    return [amount for amount in every(padding, count) for _ in range(2)]


def by_channel(values: Any, x: Any) -> Any:
    """Return values of the channels in a shape that broadcasts over `(N, C, ...)`."""
    return reshaped(values, [-1, *[1] * (x.rank - 2)])


def convolution(
    x: Any, weight: Any, bias: Any = None, stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1, *, before: Sequence[int]
) -> Any:
    """Write a convolution along one or two axes, of one image or a batch. Weights may be computed if they are not dilated."""
    axes = weight.rank - 2
    if axes > 2:
        raise Unsupported("values of rank 5")
    dilations = every(dilation, axes)
    if max(dilations) > 1:
        check_constant(weight)
    images = x if len(before) == weight.rank else reshaped(x, (1, *before))
    settings = {"strides": every(stride, axes), "pad_type": "custom", "pad": symmetric(padding, axes), "dilations": dilations, "groups": groups}
    late = computed(bias) or (computed(weight) and bias is not None)
    result = mb.conv(x=images, weight=weight, **settings, **({} if bias is None or late else {"bias": bias}))
    result = mb.add(x=result, y=by_channel(bias, result)) if late else result
    return result if images is x else reshaped(result, result.shape[1:])


def padded_convolution(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Numbers = 1,
    padding: str = "valid",
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    before: Sequence[int],
) -> Any:
    """Write a convolution whose padding is `valid` or `same`; PyTorch puts the larger half of `same` after an axis."""
    axes = weight.rank - 2
    if padding == "same":
        totals = [(size - 1) * step for size, step in zip(weight.shape[2:], every(dilation, axes), strict=True)]
        amounts = [amount for total in reversed(totals) for amount in (total // 2, total - total // 2)]
        x = constant_pad(x, amounts) if any(amounts) else x
        before = x.shape
    return convolution(x, weight, bias, stride, 0, dilation, groups, before=before)


def transposed(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Any:
    """Write a transposed convolution. Elements of `output_padding` that no tap reaches are zeros, plus the bias."""
    check_constant(weight, bias)
    axes = weight.rank - 2
    if x.rank != weight.rank or axes > 2:
        raise Unsupported("an image without a batch, or values of rank 5")
    pads = list(zip(every(padding, axes), every(output_padding, axes), strict=True))
    settings = {"strides": every(stride, axes), "dilations": every(dilation, axes), "groups": groups}
    within = [amount for before, more in pads for amount in (before, max(0, before - more))]
    beyond = [amount for before, more in reversed(pads) for amount in (0, max(0, more - before))]
    if not any(beyond):
        return mb.conv_transpose(x=x, weight=weight, pad_type="custom", pad=within, **settings, **({} if bias is None else {"bias": bias}))
    result = constant_pad(mb.conv_transpose(x=x, weight=weight, pad_type="custom", pad=within, **settings), beyond)
    return result if bias is None else mb.add(x=result, y=by_channel(bias, result))


def general_convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Numbers,
    padding: Numbers,
    dilation: Numbers,
    is_transposed: bool,
    output_padding: Numbers,
    groups: int,
    *,
    before: Sequence[int],
) -> Any:
    if is_transposed:
        return transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolution(x, weight, bias, stride, padding, dilation, groups, before=before)


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


def scaled_sum(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """Write `beta * x + alpha * a @ b`."""
    product = matmul(a, b)
    product = product if alpha == 1 else multiply(product, alpha)
    return of(mb.add, x if beta == 1 else multiply(x, beta), product) if beta else product


def attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Write attention as two matrix products and a softmax. What is masked gets minus infinity before the softmax."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        key, value = (_repeated_heads(part, query.shape[-3]) for part in (key, value))
    scores = mb.matmul(x=of(mb.mul, query, factor), y=key, transpose_y=True)
    if is_causal:
        mask = constant(torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if mask is not None:
        scores = choose(mask, scores, -math.inf, scores.shape) if kind(mask) == "bool" else mb.add(x=scores, y=mask)
    return mb.matmul(x=mb.softmax(x=scores, axis=-1), y=value)


def _repeated_heads(x: Any, heads: int) -> Any:
    *lead, given, length, size = x.shape
    times = heads // given
    apart = reshaped(x, [math.prod(lead) * given, 1, length, size])
    return reshaped(expanded(apart, [math.prod(lead) * given, times, length, size]), [*lead, heads, length, size])


def max_pool(
    x: Any, kernel: Numbers, stride: Numbers = (), padding: Numbers = 0, dilation: Numbers = 1, ceil_mode: bool = False, *, after: Sequence[int]
) -> Any:
    """Write a max pool. If `ceil_mode` lets a window end after the last element, the padding is enlarged instead; padding is never the maximum."""
    axes = len(after) - (2 if x.rank == len(after) and x.rank > 2 else 1)
    kernels, dilations, paddings = every(kernel, axes), every(dilation, axes), every(padding, axes)
    strides = every(stride or kernel, axes)
    extents = [(size - 1) * step + 1 for size, step in zip(kernels, dilations, strict=True)]
    sizes = list(zip(after[-axes:], strides, extents, paddings, x.shape[-axes:], strict=True))
    trailing = [max(p, (n - 1) * s + k - p - size) for n, s, k, p, size in sizes]
    pads = [amount for both in zip(paddings, trailing, strict=True) for amount in both]
    if max(dilations) == 1:
        return mb.max_pool(x=x, kernel_sizes=kernels, strides=strides, pad_type="custom", pad=pads)
    amounts = [amount for both in zip(reversed(paddings), reversed(trailing), strict=True) for amount in both]
    value = constant_pad(x, amounts, -math.inf) if any(amounts) else x
    for axis, (n, s) in enumerate(zip(after[-axes:], strides, strict=True), x.rank - axes):
        taps = [tap * dilations[axis - x.rank + axes] for tap in range(kernels[axis - x.rank + axes])]
        windows = [slice_tensor(value, axis, tap, tap + (n - 1) * s + 1, s) for tap in taps]
        value = windows[0]
        for window in windows[1:]:
            value = mb.maximum(x=value, y=window)
    return value


def max_pool_alone(
    x: Any, kernel: Numbers, stride: Numbers = (), padding: Numbers = 0, dilation: Numbers = 1, ceil_mode: bool = False, *, outputs: Sequence[Any]
) -> list[Any]:
    """Write a max pool that also has positions; they are refused when they are used."""
    return [max_pool(x, kernel, stride, padding, dilation, ceil_mode, after=outputs[0])]


def avg_pool2d(
    x: Any,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
    *,
    after: Sequence[int],
) -> Any:
    """Write an average pool. Where a window reaches beyond the padding, or has a divisor of its own, the mean over the whole kernel is scaled."""
    kernels, strides, paddings = pair(kernel), pair(stride or kernel), pair(padding)
    if not ceil_mode and not divisor:
        return mb.avg_pool(
            x=x,
            kernel_sizes=kernels,
            strides=strides,
            pad_type="custom",
            pad=symmetric(padding),
            exclude_padding_from_average=not count_padding,
        )
    trailing = [max(p, (n - 1) * s + k - p - size) for n, s, k, p, size in zip(after[-2:], strides, kernels, paddings, x.shape[-2:], strict=True)]
    ones = torch.ones(1, 1, *x.shape[-2:])
    if count_padding:
        ones = F.pad(ones, (paddings[1], paddings[1], paddings[0], paddings[0]), value=1.0)
        ends = (0, trailing[1] - paddings[1], 0, trailing[0] - paddings[0])
    else:
        ends = (paddings[1], trailing[1], paddings[0], trailing[0])
    shares = F.avg_pool2d(F.pad(ones, ends), kernels, strides)
    scale = torch.full_like(shares, math.prod(kernels) / divisor) if divisor else 1 / shares
    pads = [paddings[0], trailing[0], paddings[1], trailing[1]]
    whole = mb.avg_pool(x=x, kernel_sizes=kernels, strides=strides, pad_type="custom", pad=pads, exclude_padding_from_average=False)
    return whole if bool((scale == 1).all()) else mb.mul(x=whole, y=constant(scale))


def avg_pool1d(
    x: Any,
    kernel: Numbers,
    stride: Numbers = (),
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_padding: bool = True,
    *,
    after: Sequence[int],
) -> Any:
    (k,), (s,), (p,) = every(kernel, 1), every(stride or kernel, 1), every(padding, 1)
    rows = reshaped(x, [*x.shape[:-1], 1, x.shape[-1]])
    wide = avg_pool2d(rows, (1, k), (1, s), (0, p), ceil_mode, count_padding, after=(*after[:-1], 1, after[-1]))
    return reshaped(wide, after)


def batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, cudnn: bool = False
) -> Any:
    """Write a batch norm with the statistics of training, or with those of its input."""
    if not training and mean is not None and not computed(weight, bias, mean, variance) and x.rank > 2:
        optional = {name: value for name, value in (("gamma", weight), ("beta", bias)) if value is not None}
        return mb.batch_norm(x=x, mean=mean, variance=variance, epsilon=np.float32(eps), **optional)
    if training or mean is None:
        axes = [axis for axis in range(x.rank) if axis != 1]
        centred = mb.sub(x=x, y=mb.reduce_mean(x=x, axes=axes, keep_dims=True))
        spread = mb.reduce_mean(x=mb.mul(x=centred, y=centred), axes=axes, keep_dims=True)
    else:
        centred, spread = mb.sub(x=x, y=by_channel(mean, x)), by_channel(variance, x)
    return affine(mb.real_div(x=centred, y=mb.sqrt(x=of(mb.add, spread, eps))), weight, bias)


def affine(x: Any, weight: Any, bias: Any) -> Any:
    """Multiply and add a number for each channel; None for none."""
    x = x if weight is None else mb.mul(x=x, y=by_channel(weight, x))
    return x if bias is None else mb.add(x=x, y=by_channel(bias, x))


def batch_norm_alone(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float) -> list[Any]:
    return [batch_norm(x, weight, bias, mean, variance, False, momentum, eps)]


def batch_norm_without(x: Any, weight: Any, bias: Any, training: bool, momentum: float, eps: float) -> list[Any]:
    return [batch_norm(x, weight, bias, None, None, True, momentum, eps)]


def layer_norm(x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    axes = list(range(-len(shape), 0))
    if computed(weight, bias):
        plain = mb.layer_norm(x=x, axes=axes, epsilon=np.float32(eps))
        plain = plain if weight is None else mb.mul(x=plain, y=weight)
        return plain if bias is None else mb.add(x=plain, y=bias)
    gamma = constant(torch.ones(tuple(shape))) if weight is None and bias is not None else weight
    optional = {name: value for name, value in (("gamma", gamma), ("beta", bias)) if value is not None}
    return mb.layer_norm(x=x, axes=axes, epsilon=np.float32(eps), **optional)


def group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    rows = reshaped(x, [x.shape[0], groups, math.prod(x.shape[1:]) // groups])
    return affine(reshaped(mb.layer_norm(x=rows, axes=[-1], epsilon=np.float32(eps)), x.shape), weight, bias)


def native_group_norm(x: Any, weight: Any, bias: Any, batch: int, channels: int, pixels: int, groups: int, eps: float) -> list[Any]:
    return [group_norm(x, groups, weight, bias, eps)]


def instance_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, use_input: bool, momentum: float = 0.1, eps: float = 1e-5, cudnn: bool = False
) -> Any:
    if not use_input:
        return batch_norm(x, weight, bias, mean, variance, False, momentum, eps)
    return group_norm(x, x.shape[1], weight, bias, eps)


def cdist(x: Any, y: Any, order: float, mode: int | None = None) -> Any:
    """Write the distances of all pairs of rows from their differences: products of matrices would lose the digits of close rows."""
    difference = mb.sub(x=mb.expand_dims(x=x, axes=[-2]), y=mb.expand_dims(x=y, axes=[-3]))
    if order == 2:
        return mb.reduce_l2_norm(x=difference, axes=[-1], keep_dims=False)
    if order == 1:
        return mb.reduce_l1_norm(x=difference, axes=[-1], keep_dims=False)
    size = mb.abs(x=difference)
    if math.isinf(order):
        return mb.reduce_max(x=size, axes=[-1], keep_dims=False)
    return of(mb.pow, mb.reduce_sum(x=of(mb.pow, size, order), axes=[-1], keep_dims=False), 1 / order)


def trilinear(
    a: Any, b: Any, c: Any, expand_a: Sequence[int], expand_b: Sequence[int], expand_c: Sequence[int], summed: Sequence[int], unroll: int = 1
) -> Any:
    """Write the sum of products of three values that are broadcast along new axes."""
    parts = [mb.expand_dims(x=value, axes=list(axes)) if axes else value for value, axes in ((a, expand_a), (b, expand_b), (c, expand_c))]
    product = mb.mul(x=mb.mul(x=parts[0], y=parts[1]), y=parts[2])
    return mb.reduce_sum(x=product, axes=list(summed), keep_dims=False) if summed else product


OPERATORS: dict[Any, Function] = {
    aten._cdist_forward.default: cdist,
    aten._native_batch_norm_legit_no_training.default: batch_norm_alone,
    aten._native_batch_norm_legit.no_stats: batch_norm_without,
    aten._trilinear.default: trilinear,
    aten.addmm.default: scaled_sum,
    aten.avg_pool1d.default: avg_pool1d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.baddbmm.default: scaled_sum,
    aten.batch_norm.default: batch_norm,
    aten.bmm.default: matmul,
    aten.conv1d.default: convolution,
    aten.conv1d.padding: padded_convolution,
    aten.conv2d.default: convolution,
    aten.conv2d.padding: padded_convolution,
    aten.conv_transpose1d.default: transposed,
    aten.conv_transpose2d.input: transposed,
    aten.convolution.default: general_convolution,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten.layer_norm.default: layer_norm,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.max_pool1d.default: max_pool,
    aten.max_pool2d.default: max_pool,
    aten.max_pool2d_with_indices.default: max_pool_alone,
    aten.mm.default: matmul,
    aten.mv.default: matmul,
    aten.native_group_norm.default: native_group_norm,
    aten.native_layer_norm.default: lambda x, shape, weight, bias, eps: [layer_norm(x, shape, weight, bias, eps)],
    aten.scaled_dot_product_attention.default: attention,
}
