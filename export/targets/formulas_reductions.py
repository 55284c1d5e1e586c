"""Formulas of reductions, norms, cumulative operators and sorts."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
MOST_TERMS = 64
"""The longest axis along which an operator that has a kernel outside of XNNPACK is written out, entry by entry."""
Dims = Sequence[int] | int | None


def group_norm(x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, epsilon: float = 1e-5, fast: bool = False) -> Tensor:
    normalised = _normalised(x.reshape(len(x), groups, -1), [-1], epsilon).reshape(x.shape)
    return _scaled(normalised, *(_by_channel(value, x.ndim) for value in (weight, bias)))


def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    use_input: bool,
    momentum: float,
    epsilon: float,
    fast: bool,
) -> Tensor:
    if use_input or mean is None or variance is None:
        return group_norm(x, x.shape[1], weight, bias, epsilon)
    scale = (variance + epsilon).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return _scaled(x, *(_by_channel(value, x.ndim) for value in (scale, shift)))


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, momentum: float, epsilon: float
) -> tuple[Tensor, None, None]:
    """A batch norm by kept statistics, without the statistics."""
    return instance_norm(x, weight, bias, mean, variance, False, momentum, epsilon, False), None, None


def _by_channel(value: Tensor | None, rank: int) -> Tensor | None:
    return None if value is None else value.reshape(1, -1, *[1] * (rank - 2))


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _normalised(x: Tensor, dims: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * ((centred * centred).mean(dims, keepdim=True) + epsilon).rsqrt()


def variance(x: Tensor, dims: Dims = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """A variance."""
    return variance_and_mean(x, dims, correction=correction, keepdim=keepdim)[0]


def deviation(x: Tensor, dims: Dims = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """A standard deviation."""
    return variance(x, dims, correction=correction, keepdim=keepdim).sqrt()


def variance_and_mean(x: Tensor, dims: Dims = None, *, correction: float | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    axes = _axes(x, dims)
    mean = x.mean(axes, keepdim=True)
    count = math.prod(x.shape[axis] for axis in axes)
    squares = ((x - mean) * (x - mean)).mean(axes, keepdim=keepdim)
    return squares * (count / (count - (1 if correction is None else correction))), mean if keepdim else mean.squeeze(tuple(axes))


def _axes(x: Tensor, dims: Dims) -> list[int]:
    if isinstance(dims, int):
        return [dims % x.ndim]
    return [dim % x.ndim for dim in dims] if dims else list(range(x.ndim))


def vector_norm(x: Tensor, order: float = 2, dims: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    if dtype not in (None, torch.float32):
        raise Unsupported("a result other than float32")
    axes = _axes(x, dims)
    if abs(order) == math.inf:
        return (x.abs().amax if order > 0 else x.abs().amin)(axes, keepdim)
    if order == 1:
        return x.abs().sum(axes, keepdim)
    if order == 2:
        return (x * x).sum(axes, keepdim).sqrt()
    if order == 0:
        raise Unsupported("the number of entries that are not 0")
    return x.abs().pow(order).sum(axes, keepdim).pow(1 / order)


def log_softmax(x: Tensor, dim: int, dtype: torch.dtype | bool | None = None) -> Tensor:
    if dtype not in (None, False, torch.float32):
        raise Unsupported("a result other than float32")
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def largest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amax(dim, keepdim), x.argmax(dim, keepdim)


def smallest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amin(dim, keepdim), x.argmin(dim, keepdim)


def product(x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    _check_terms(x, dim, dtype)
    first, *others = _entries(x, dim)
    for other in others:
        first = first * other
    return first if keepdim else first.squeeze(dim)


def cumulative_sum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    _check_terms(x, dim, dtype)
    return _scanned(x, dim, torch.add)


def cumulative_product(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    if dtype not in (None, x.dtype):
        raise Unsupported("a result of another type")
    return _scanned(x, dim, torch.mul)


def cumulative_log_sum(x: Tensor, dim: int) -> Tensor:
    """The logarithm of cumulative sums of exponentials."""
    return _scanned(x, dim, lambda a, b: torch.maximum(a, b) + ((-(a - b).abs()).exp() + 1).log())


def cumulative_maximum(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _scanned(x, dim, torch.maximum), _places(x, dim, torch.ge, torch.maximum)


def cumulative_minimum(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _scanned(x, dim, torch.minimum), _places(x, dim, torch.le, torch.minimum)


def _entries(x: Tensor, dim: int) -> list[Tensor]:
    return list(aten.split.Tensor(x, 1, dim))


def _scanned(x: Tensor, dim: int, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    results: list[Tensor] = []
    for part in _entries(x, dim):
        results.append(function(results[-1], part) if results else part)
    return torch.cat(results, dim)


def _places(x: Tensor, dim: int, better: Callable[[Tensor, Tensor], Tensor], function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the index of the newest entry that was the best so far."""
    parts = _entries(x, dim)
    best, places = parts[0], [torch.zeros_like(parts[0], dtype=torch.int64)]
    for index, part in enumerate(parts[1:], start=1):
        places.append(torch.where(better(part, best), torch.full_like(places[-1], index), places[-1]))
        best = function(best, part)
    return torch.cat(places, dim)


def _check_terms(x: Tensor, dim: int, dtype: torch.dtype | None) -> None:
    if x.dtype != torch.float32 or dtype not in (None, torch.float32):
        raise Unsupported("values other than float32")
    if x.shape[dim] > MOST_TERMS:
        raise Unsupported("an axis of more than 64 entries")


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """A sort: the largest, or smallest, entries, of which there are as many as the axis has."""
    values, places = x.topk(x.shape[dim], dim, largest=descending)
    return values, places


def kth_value(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, places = x.topk(k, dim, largest=False)
    if keepdim:
        return aten.slice.Tensor(values, dim, k - 1, k), aten.slice.Tensor(places, dim, k - 1, k)
    return values.select(dim, k - 1), places.select(dim, k - 1)


def median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return kth_value(x, (x.shape[dim] + 1) // 2, dim, keepdim)


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
    aten.var.correction: variance,
    aten.std.correction: deviation,
    aten.var_mean.correction: variance_and_mean,
    aten.linalg_vector_norm.default: vector_norm,
    aten.log_softmax.int: log_softmax,
    aten._log_softmax.default: log_softmax,
    aten.max.dim: largest,
    aten.min.dim: smallest,
    aten.max.default: lambda x: x.amax(),
    aten.min.default: lambda x: x.amin(),
    aten.prod.dim_int: product,
    aten.cumsum.default: cumulative_sum,
    aten.cumprod.default: cumulative_product,
    aten.logcumsumexp.default: cumulative_log_sum,
    aten.cummax.default: cumulative_maximum,
    aten.cummin.default: cumulative_minimum,
    aten.sort.default: sort,
    aten.kthvalue.default: kth_value,
    aten.median.dim: median,
    aten.median.default: lambda x: median(x.flatten(), 0)[0],
}
