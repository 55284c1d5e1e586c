"""Formulas of convolutions and matrix products, from those that XNNPACK has: 2D convolutions of constant weights, and products of matrices."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.targets.common import Pair, pair
from clipstep.export.targets.formulas_elementwise import where

aten = torch.ops.aten


def is_constant(value: Tensor | None) -> bool:
    return value is None or isinstance(value, nn.Parameter)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1) -> Tensor:
    """A convolution without a batch axis, or with computed weights or a computed bias."""
    return _convolution(x, weight, bias, pair(stride), pair(padding), pair(dilation), groups, is_constant(weight))


def conv2d_named_padding(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: str = "valid", dilation: Pair = 1, groups: int = 1
) -> Tensor:
    """A convolution whose padding is `same` or `valid`."""
    return _convolution(_padded(x, weight, dilation, padding), weight, bias, pair(stride), (0, 0), pair(dilation), groups, is_constant(weight))


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1) -> Tensor:
    """A 1D convolution: a 2D convolution of one row."""
    settings = (1, pair(stride)[1]), (0, pair(padding)[1]), (1, pair(dilation)[1])
    return _convolution(x.unsqueeze(-2), weight.unsqueeze(-2), bias, *settings, groups, is_constant(weight)).squeeze(-2)


def conv1d_named_padding(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: str = "valid", dilation: Pair = 1, groups: int = 1
) -> Tensor:
    """A 1D convolution whose padding is `same` or `valid`."""
    settings = (1, pair(stride)[1]), (0, 0), (1, pair(dilation)[1])
    row, rows = weight.unsqueeze(-2), x.unsqueeze(-2)
    return _convolution(_padded(rows, row, settings[2], padding), row, bias, *settings, groups, is_constant(weight)).squeeze(-2)


def _padded(x: Tensor, weight: Tensor, dilation: Pair, padding: str) -> Tensor:
    totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
    amounts = [amount for total in reversed(totals) for amount in (total // 2, total - total // 2)]
    return F.pad(x, amounts) if any(amounts) else x


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, constant: bool) -> Tensor:
    """A 2D convolution. If its weights are computed, their product with the im2col matrix, which is a depthwise convolution with ones."""
    if x.ndim == 3:
        return _convolution(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups, constant).squeeze(0)
    if constant and is_constant(bias):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if constant:
        result = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    else:
        channels, (out, _, *kernel) = x.shape[1], weight.shape
        taps = math.prod(kernel)
        ones = torch.eye(taps).reshape(taps, 1, *kernel).repeat(channels, 1, 1, 1)
        patches = F.conv2d(x, ones, None, stride, padding, dilation, channels)
        size = patches.shape[2:]
        columns = patches.reshape(len(x), groups, channels // groups * taps, math.prod(size))
        result = (weight.reshape(1, groups, out // groups, -1) @ columns).reshape(len(x), out, *size)
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """A transposed convolution without a batch axis, or of computed weights, or of a large output padding.

    The last two are convolutions of the input with zeros between its elements.
    """
    if x.ndim == 3:
        return conv_transpose2d(x.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
    if is_constant(weight) and not any(m >= s for m, s in zip(pair(output_padding), pair(stride), strict=True)):
        result = F.conv_transpose2d(x, weight, bias if is_constant(bias) else None, stride, padding, output_padding, groups, dilation)
        return result if bias is None or is_constant(bias) else result + bias.reshape(1, -1, 1, 1)
    channels, out, *kernel = weight.shape
    spread = F.conv_transpose2d(x, torch.ones(channels, 1, 1, 1), None, stride, 0, 0, channels)
    before = [d * (k - 1) - p for d, k, p in zip(pair(dilation), kernel, pair(padding), strict=True)]
    after = [amount + more for amount, more in zip(before, pair(output_padding), strict=True)]
    spread = F.pad(spread, (before[1], after[1], before[0], after[0]))
    turned = weight.reshape(groups, channels // groups, out, -1).transpose(1, 2).reshape(groups * out, channels // groups, *kernel).flip(2, 3)
    return _convolution(spread, turned, bias, (1, 1), (0, 0), dilation, groups, is_constant(weight))


def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """A 1D transposed convolution: one in 2D of one row."""
    row = weight.unsqueeze(-2)
    filters: Tensor = nn.Parameter(row, requires_grad=False) if is_constant(weight) else row
    settings = (1, pair(stride)[1]), (0, pair(padding)[1]), (0, pair(output_padding)[1])
    return conv_transpose2d(x.unsqueeze(-2), filters, bias, *settings, groups, (1, pair(dilation)[1])).squeeze(-2)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with computed weights or a computed bias."""
    product = F.linear(x, weight) if is_constant(weight) else matmul(x, weight.transpose(-1, -2))
    return product if bias is None else product + bias


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """A product with vectors."""
    product = (a.unsqueeze(0) if a.ndim == 1 else a) @ (b.unsqueeze(-1) if b.ndim == 1 else b)
    product = product.squeeze(-1) if b.ndim == 1 else product
    return product.squeeze(-1 if b.ndim == 1 else -2) if a.ndim == 1 else product


def addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """A matrix product that is added to a value, of one matrix or a batch of them."""
    product = matmul(a, b)
    return (x if beta == 1 else x * beta) + (product if alpha == 1 else product * alpha)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Scaled dot-product attention."""
    if enable_gqa:
        heads = torch.arange(key.shape[-3]).repeat_interleave(query.shape[-3] // key.shape[-3])
        key, value = (one.index_select(-3, heads) for one in (key, value))
    scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
    if causal:
        mask = nn.Parameter(torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), requires_grad=False)
    if mask is not None and mask.dtype == torch.bool:
        least = nn.Parameter(torch.tensor(-math.inf), requires_grad=False)
        scores = where(mask, scores, least) if is_constant(mask) else torch.where(mask, scores, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ value


def trilinear(
    a: Tensor, b: Tensor, c: Tensor, first: Sequence[int], second: Sequence[int], third: Sequence[int], sums: Sequence[int], unroll: int = 1
) -> Tensor:
    """The product of three values, with new axes at the given places, summed along axes."""
    for dim in first:
        a = a.unsqueeze(dim)
    for dim in second:
        b = b.unsqueeze(dim)
    for dim in third:
        c = c.unsqueeze(dim)
    return (a * b * c).sum(list(sums))


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.conv1d.default: conv1d,
    aten.conv1d.padding: conv1d_named_padding,
    aten.conv2d.default: conv2d,
    aten.conv2d.padding: conv2d_named_padding,
    aten.conv_transpose1d.default: conv_transpose1d,
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.mv.default: matmul,
    aten.dot.default: matmul,
    aten.addmm.default: addmm,
    aten.addmv.default: addmm,
    aten.baddbmm.default: addmm,
    aten.scaled_dot_product_attention.default: attention,
    aten._trilinear.default: trilinear,
}
