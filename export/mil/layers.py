"""Convolutions, pools, norms and matrix products of ML Programs, in torch's kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.mil.settings import Numbers, expect, numbers, paddings, torch_padding

CONVOLUTIONS: list[Callable[..., Tensor]] = [F.conv1d, F.conv2d, F.conv3d]
TRANSPOSED: list[Callable[..., Tensor]] = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]
MAX_POOLS: list[Callable[..., Tensor]] = [F.max_pool1d, F.max_pool2d, F.max_pool3d]
AVERAGE_POOLS: list[Callable[..., Tensor]] = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d]
"""By the number of spatial axes, less one."""


def _of_rank(functions: Sequence[Callable[..., Tensor]], x: Tensor) -> Callable[..., Tensor]:
    expect(3 <= x.ndim <= 5, f"a convolution or pool of a value of rank {x.ndim}")
    return functions[x.ndim - 3]


def conv(
    *,
    x: Tensor,
    weight: Tensor,
    strides: Numbers,
    pad_type: str,
    pad: Numbers,
    dilations: Numbers,
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    function, steps, dilation = _of_rank(CONVOLUTIONS, x), numbers(strides), numbers(dilations)
    extents = [(size - 1) * d + 1 for size, d in zip(weight.shape[2:], dilation, strict=True)]
    pairs = paddings(pad_type, pad, x.shape[2:], extents, steps)
    if any(before != after for before, after in pairs):
        x, pairs = F.pad(x, torch_padding(pairs)), [(0, 0)] * len(pairs)
    return function(x, weight, bias, steps, [before for before, _ in pairs], dilation, groups)


def conv_transpose(
    *,
    x: Tensor,
    weight: Tensor,
    strides: Numbers,
    pad_type: str,
    pad: Numbers,
    dilations: Numbers,
    groups: int,
    bias: Tensor | None = None,
    output_shape: Numbers | None = None,
) -> Tensor:
    """Compute a transposed convolution: without padding, then cut by it, or to `output_shape`, which may reach beyond the end."""
    expect(pad_type in ("valid", "custom"), f"conv_transpose with pad_type {pad_type}")
    whole = _of_rank(TRANSPOSED, x)(x, weight, None, numbers(strides), 0, 0, groups, numbers(dilations))
    pairs = paddings(pad_type, pad, x.shape[2:], weight.shape[2:], numbers(strides))
    sizes = [size - before - after for size, (before, after) in zip(whole.shape[2:], pairs, strict=True)]
    if output_shape is not None:
        sizes = numbers(output_shape)[2:]
    ends = [(-before, before + wanted - size) for size, wanted, (before, _) in zip(whole.shape[2:], sizes, pairs, strict=True)]
    result = F.pad(whole, torch_padding(ends))
    return result if bias is None else result + bias.reshape(-1, *[1] * (x.ndim - 2))


def _pool_settings(
    x: Tensor, kernel_sizes: Numbers, strides: Numbers, pad_type: str, pad: Numbers, ceil_mode: bool
) -> tuple[list[int], list[int], list[tuple[int, int]], bool]:
    """Return the kernel, the strides, the paddings, and whether torch's pools take the paddings: symmetric ones of at most half a kernel."""
    kernel, steps = numbers(kernel_sizes), numbers(strides)
    pairs = paddings(pad_type, pad, x.shape[2:], kernel, steps)
    simple = all(before == after and 2 * before <= size for (before, after), size in zip(pairs, kernel, strict=True))
    expect(simple or not ceil_mode, "ceil_mode with such a padding")
    return kernel, steps, pairs, simple


def max_pool(*, x: Tensor, kernel_sizes: Numbers, strides: Numbers, pad_type: str, pad: Numbers, ceil_mode: bool) -> Tensor:
    kernel, steps, pairs, simple = _pool_settings(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    pool = _of_rank(MAX_POOLS, x)
    if simple:
        return pool(x, kernel, steps, [before for before, _ in pairs], ceil_mode=ceil_mode)
    return pool(F.pad(x, torch_padding(pairs), value=float("-inf")), kernel, steps)


def avg_pool(
    *, x: Tensor, kernel_sizes: Numbers, strides: Numbers, pad_type: str, pad: Numbers, ceil_mode: bool, exclude_padding_from_average: bool
) -> Tensor:
    kernel, steps, pairs, simple = _pool_settings(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    pool = _of_rank(AVERAGE_POOLS, x)
    if simple:
        return pool(x, kernel, steps, [before for before, _ in pairs], ceil_mode=ceil_mode, count_include_pad=not exclude_padding_from_average)
    mean = pool(F.pad(x, torch_padding(pairs)), kernel, steps)
    return mean / pool(F.pad(torch.ones_like(x), torch_padding(pairs)), kernel, steps) if exclude_padding_from_average else mean


def l2_pool(*, x: Tensor, kernel_sizes: Numbers, strides: Numbers, pad_type: str, pad: Numbers, ceil_mode: bool) -> Tensor:
    expect(not ceil_mode, "l2_pool with ceil_mode")
    kernel, steps, pairs, _ = _pool_settings(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    mean = _of_rank(AVERAGE_POOLS, x)(F.pad(x.square(), torch_padding(pairs)), kernel, steps)
    count = 1
    for size in kernel:
        count *= size
    return (mean * count).sqrt()


def batch_norm(*, x: Tensor, mean: Tensor, variance: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def instance_norm(*, x: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def layer_norm(*, x: Tensor, axes: Numbers, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    normalised = sorted(axis % x.ndim for axis in numbers(axes))
    if normalised == list(range(x.ndim - len(normalised), x.ndim)):
        return F.layer_norm(x, x.shape[normalised[0] :], gamma, beta, epsilon)
    shape = [size if axis in normalised else 1 for axis, size in enumerate(x.shape)]
    centred = x - x.mean(normalised, keepdim=True)
    result = centred * (centred.square().mean(normalised, keepdim=True) + epsilon).rsqrt()
    result = result if gamma is None else result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


def l2_norm(*, x: Tensor, epsilon: float) -> Tensor:
    return x * (x.square().sum((-3, -2, -1), keepdim=True) + epsilon).rsqrt()


def local_response_norm(*, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    expect(size % 2 == 1, f"local_response_norm of an even number of channels, {size}")
    return F.local_response_norm(x, size, alpha, beta, k)


def linear(*, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def matmul(*, x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def attention(*, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


LAYERS: dict[str, Callable[..., Any]] = {
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "einsum": lambda *, values, equation: torch.einsum(equation, *values),
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "l2_pool": l2_pool,
    "layer_norm": layer_norm,
    "linear": linear,
    "local_response_norm": local_response_norm,
    "matmul": matmul,
    "max_pool": max_pool,
    "scaled_dot_product_attention": attention,
    "softmax": lambda *, x, axis: x.softmax(axis),
}
