"""Operators that find places or write to them: stable sorts, reductions into places, diagonals.

They compare each place with each entry, which takes as many comparisons as the product of both; beyond `LARGEST` of them the operator stays whole.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
LARGEST = 1 << 24
"""The most comparisons that an operator becomes."""
LOWEST = -3e38


def stable_sort(x: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False) -> Any:
    """Sort an axis; equal entries keep their order. The place of an entry is the number of those that come before it."""
    length = x.shape[dim] if x.ndim else 1
    if not stable:
        return torch.topk(x, length, dim, largest=descending)
    if x.numel() * length > LARGEST or not x.ndim:
        return NotImplemented
    rows = x.movedim(dim, -1).reshape(-1, length)
    own, others = rows.unsqueeze(-1), rows.unsqueeze(-2)
    first = others > own if descending else others < own
    earlier = torch.ones(length, length).tril(-1) > 0
    places = (first | ((others == own) & earlier)).sum(-1)
    order = (places.unsqueeze(-2) == torch.arange(length).unsqueeze(-1)).to(torch.float32).argmax(-1)
    indices = order.reshape(x.movedim(dim, -1).shape).movedim(-1, dim)
    return x.gather(dim, indices), indices


def scatter_reduce(x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Any:
    """Reduce the entries of `source` that `index` sends to the same place of an axis, together with what is there or without it."""
    dim %= max(x.ndim, 1)
    sizes = [[size for axis, size in enumerate(value.shape) if axis != dim] for value in (x, index)]
    if not x.ndim or sizes[0] != sizes[1] or x.numel() * index.shape[dim] > LARGEST or not x.is_floating_point():
        return NotImplemented
    before = x.movedim(dim, -1).reshape(-1, x.shape[dim])
    places = index.movedim(dim, -1).reshape(-1, 1, index.shape[dim])
    given = aten.slice.Tensor(source, dim, 0, index.shape[dim])
    given = given.movedim(dim, -1).reshape(-1, 1, index.shape[dim])
    hits = places == torch.arange(x.shape[dim]).unsqueeze(-1)
    result = torch.where(hits.any(-1), _reduced(reduce, before, given, hits, include_self=include_self), before)
    return result.reshape(x.movedim(dim, -1).shape).movedim(-1, dim)


def _reduced(reduce: str, before: Tensor, given: Tensor, hits: Tensor, *, include_self: bool) -> Tensor:
    if reduce in ("amax", "amin"):
        function, limit = (torch.amax, LOWEST) if reduce == "amax" else (torch.amin, -LOWEST)
        found = function(torch.where(hits, given, limit), -1)
        return (torch.maximum if reduce == "amax" else torch.minimum)(found, before) if include_self else found
    if reduce == "prod":
        found = torch.where(hits, given, 1.0).prod(-1)
        return found * before if include_self else found
    counted = hits.to(given.dtype)
    total = (counted * given).sum(-1) + (before if include_self else 0)
    return total if reduce == "sum" else total / (counted.sum(-1) + int(include_self)).clamp_min(1)


def put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    return x.flatten().index_put((index.flatten(),), source.flatten(), accumulate).reshape(x.shape)


def diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, first: int = 0, second: int = 1) -> Tensor:
    """Put values on the diagonal of two axes."""
    moved = x.movedim((first, second), (0, 1))
    rows = torch.arange(source.shape[-1]) + max(0, -offset)
    return moved.index_put((rows, rows + offset), source.movedim(-1, 0)).movedim((0, 1), (first, second))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.sort.stable: stable_sort,
    aten.scatter_reduce.two: scatter_reduce,
    aten.put.default: put,
    aten.diagonal_scatter.default: diagonal_scatter,
}
