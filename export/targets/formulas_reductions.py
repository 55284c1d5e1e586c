"""Formulas of variances, products and running sums."""

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


def variance(x: Tensor, dims: Dims = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """A variance."""
    return variance_and_mean(x, dims, correction=correction, keepdim=keepdim)[0]


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


def product(x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    _check_terms(x, dim, dtype)
    first, *others = _entries(x, dim)
    for other in others:
        first = first * other
    return first if keepdim else first.squeeze(dim)


def cumulative_sum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    _check_terms(x, dim, dtype)
    return _scanned(x, dim, torch.add)


def _entries(x: Tensor, dim: int) -> list[Tensor]:
    return list(aten.split.Tensor(x, 1, dim))


def _scanned(x: Tensor, dim: int, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    results: list[Tensor] = []
    for part in _entries(x, dim):
        results.append(function(results[-1], part) if results else part)
    return torch.cat(results, dim)


def _check_terms(x: Tensor, dim: int, dtype: torch.dtype | None) -> None:
    if x.dtype != torch.float32 or dtype not in (None, torch.float32):
        raise Unsupported("values other than float32")
    if x.shape[dim] > MOST_TERMS:
        raise Unsupported("an axis of more than 64 entries")


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.var.correction: variance,
    aten.prod.dim_int: product,
    aten.cumsum.default: cumulative_sum,
}
