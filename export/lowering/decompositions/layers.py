"""Norms, products, activations with weights, and convolutions over one axis."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.operators import named_padding

aten = torch.ops.aten


def batch_norm_of_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch norm by the statistics of its input, and these statistics."""
    axes = [d for d in range(x.ndim) if d != 1]
    channels = [1, -1, *[1] * (x.ndim - 2)]
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    deviation = ((centred * centred).mean(axes, keepdim=True) + epsilon).rsqrt()
    result = centred * deviation
    result = result if weight is None else result * weight.reshape(channels)
    return result if bias is None else result + bias.reshape(channels), mean.flatten(), deviation.flatten()


def group_norm(x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, epsilon: float = 1e-5, *_: Any) -> Tensor:
    rows = x.reshape(len(x) * groups, -1)
    centred = rows - rows.mean(1, keepdim=True)
    result = (centred * ((centred * centred).mean(1, keepdim=True) + epsilon).rsqrt()).reshape(x.shape)
    channels = [-1, *[1] * (x.ndim - 2)]
    result = result if weight is None else result * weight.reshape(channels)
    return result if bias is None else result + bias.reshape(channels)


def native_group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, batch: int, channels: int, pixels: int, groups: int, epsilon: float
) -> tuple[Tensor, ...]:
    rows = x.reshape(batch, groups, -1)
    return group_norm(x, groups, weight, bias, epsilon), rows.mean(2), (rows.var(2, correction=0) + epsilon).rsqrt()


def native_layer_norm(x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, epsilon: float) -> tuple[Tensor, ...]:
    axes = list(range(-len(shape), 0))
    deviation = (x.var(axes, correction=0, keepdim=True) + epsilon).rsqrt()
    return F.layer_norm(x, shape, weight, bias, epsilon), x.mean(axes, keepdim=True), deviation


CONVOLUTIONS: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
TRANSPOSED: dict[int, Any] = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
"""By the rank of their weights."""


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool, more: Any, groups: int
) -> Any:
    """The operator that stands for all convolutions in graphs that PyTorch has decomposed."""
    if transposed:
        return TRANSPOSED[weight.ndim](x, weight, bias, stride, padding, more, groups, dilation)
    return CONVOLUTIONS[weight.ndim](x, weight, bias, stride, padding, dilation, groups)


def product_and_sum(added: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = a @ b if alpha == 1 else (a @ b) * alpha
    return product + (added if beta == 1 else added * beta)


def sum_of_products(added: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """The products of the matrices of `a` and `b`, added up: that of all columns of `a` with all rows of `b`."""
    return product_and_sum(added, a.transpose(0, 1).flatten(1), b.flatten(0, 1), beta=beta, alpha=alpha)


def triple_product(
    a: Tensor, b: Tensor, c: Tensor, expand_a: list[int], expand_b: list[int], expand_c: list[int], summed: list[int], _: int = 1
) -> Tensor:
    """The sum of a product of three values over some axes; each value is first given axes of size 1 at its places to expand."""
    for axis in expand_a:
        a = a.unsqueeze(axis)
    for axis in expand_b:
        b = b.unsqueeze(axis)
    for axis in expand_c:
        c = c.unsqueeze(axis)
    return (a * b * c).sum(summed)


def convolution_over_one_axis(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = (1,), padding: Any = (0,), dilation: Any = (1,), groups: int = 1
) -> Tensor:
    """A 1D convolution, as a 2D convolution of images with a single row."""
    batch = x if x.ndim == 3 else x.unsqueeze(0)
    rows = padding if isinstance(padding, str) else (0, *padding)
    result = F.conv2d(batch.unsqueeze(2), weight.unsqueeze(2), bias, (1, *stride), rows, (1, *dilation), groups).squeeze(2)
    return result if x.ndim == 3 else result.squeeze(0)


def convolution_with_named_padding(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = (1, 1), padding: str = "valid", dilation: Any = (1, 1), groups: int = 1
) -> Tensor:
    """A 2D convolution whose padding is `same` or `valid`."""
    (top, bottom), (left, right) = named_padding(padding, weight.shape[2:], dilation)
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)


def transposed_convolution_over_one_axis(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1,),
    padding: Any = (0,),
    output_padding: Any = (0,),
    groups: int = 1,
    dilation: Any = (1,),
) -> Tensor:
    batch = x if x.ndim == 3 else x.unsqueeze(0)
    settings: list[Any] = [(1, *stride), (0, *padding), (0, *output_padding), groups, (1, *dilation)]
    result = F.conv_transpose2d(batch.unsqueeze(2), weight.unsqueeze(2), bias, *settings).squeeze(2)
    return result if x.ndim == 3 else result.squeeze(0)


def rrelu(x: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None) -> Any:
    """In eval mode, when no numbers are drawn: the slope is the mean of the two. Its second result is the noise."""
    return NotImplemented if training else (F.leaky_relu(x, (lower + upper) / 2), noise)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.addmm.default: product_and_sum,
    aten.addmv.default: product_and_sum,
    aten.baddbmm.default: product_and_sum,
    aten.addbmm.default: sum_of_products,
    aten._trilinear.default: triple_product,
    aten.log_sigmoid.default: lambda x: -F.softplus(-x),
    aten.rrelu_with_noise_functional.default: rrelu,
    aten._prelu_kernel.default: lambda x, slope: x.relu() + x.clamp(max=0) * slope,
    aten.conv2d.padding: convolution_with_named_padding,
    aten.conv1d.default: convolution_over_one_axis,
    aten.conv1d.padding: convolution_over_one_axis,
    aten.conv_transpose1d.default: transposed_convolution_over_one_axis,
    aten._native_batch_norm_legit.no_stats: batch_norm_of_batch,
    aten.group_norm.default: group_norm,
    aten.native_group_norm.default: native_group_norm,
    aten.native_layer_norm.default: native_layer_norm,
    aten.convolution.default: convolution,
}
