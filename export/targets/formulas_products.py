"""Formulas of convolutions and matrix products, from those that XNNPACK has: 2D convolutions of constant weights, and products of matrices."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.targets.common import Pair, pair

aten = torch.ops.aten


def is_constant(value: Tensor | None) -> bool:
    return value is None or isinstance(value, nn.Parameter)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1) -> Tensor:
    """A convolution with computed weights or a computed bias."""
    return _convolution(x, weight, bias, pair(stride), pair(padding), pair(dilation), groups, is_constant(weight))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, constant: bool) -> Tensor:
    """A 2D convolution. If its weights are computed, their product with the im2col matrix, which is a depthwise convolution with ones."""
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
    """A transposed convolution of computed weights, or of a large output padding.

    The last two are convolutions of the input with zeros between its elements.
    """
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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with computed weights or a computed bias."""
    product = F.linear(x, weight) if is_constant(weight) else matmul(x, weight.transpose(-1, -2))
    return product if bias is None else product + bias


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """A product with vectors."""
    product = (a.unsqueeze(0) if a.ndim == 1 else a) @ (b.unsqueeze(-1) if b.ndim == 1 else b)
    product = product.squeeze(-1) if b.ndim == 1 else product
    return product.squeeze(-1 if b.ndim == 1 else -2) if a.ndim == 1 else product


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.conv2d.default: conv2d,
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
}
