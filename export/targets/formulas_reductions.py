"""Formulas of products and running sums."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
MOST_TERMS = 64
"""The longest axis along which an operator that has a kernel outside of XNNPACK is written out, entry by entry."""


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
    return [aten.slice.Tensor(x, dim, place, place + 1) for place in range(x.shape[dim])]


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
    aten.prod.dim_int: product,
    aten.cumsum.default: cumulative_sum,
}
