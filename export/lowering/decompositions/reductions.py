"""Reductions, running reductions and orders along an axis, by those that engines have: sums, means, maxima, minima, products and the largest k."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Dims = int | Sequence[int] | None
LARGEST = torch.finfo(torch.float32).max


def any_of(x: Tensor, dims: Dims = None, keepdim: bool = False, *, every: bool = False) -> Tensor:
    """Whether any element along the axes is not 0, or every one."""
    truth = (x if x.dtype == torch.bool else x != 0).to(torch.float32)
    axes = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    return (truth.amin if every else truth.amax)(tuple(axes), keepdim) != 0


def variance(x: Tensor, dims: Dims = None, *, correction: float | None = 1, keepdim: bool = False) -> Tensor:
    """The mean square of the differences from the mean."""
    axes = _axes(x, dims)
    count = math.prod(x.shape[axis] for axis in axes)
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).mean(axes, keepdim=keepdim) * (count / (count - (1 if correction is None else correction)))


def variance_and_mean(x: Tensor, dims: Dims = None, *, correction: float | None = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return variance(x, dims, correction=correction, keepdim=keepdim), x.mean(_axes(x, dims), keepdim=keepdim)


def _axes(x: Tensor, dims: Dims) -> list[int]:
    return [dims] if isinstance(dims, int) else list(dims or range(x.ndim))


def norm(x: Tensor, order: float = 2, dims: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    axes = tuple(range(x.ndim)) if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if order == math.inf:
        return x.abs().amax(axes, keepdim)
    if order == -math.inf:
        return x.abs().amin(axes, keepdim)
    if order == 0:
        return (x != 0).to(x.dtype).sum(axes, keepdim)
    if order == 1:
        return x.abs().sum(axes, keepdim)
    if order == 2:
        return (x * x).sum(axes, keepdim).sqrt()
    return x.abs().pow(order).sum(axes, keepdim).pow(1 / order)


def log_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    x = x.to(dtype) if isinstance(dtype, torch.dtype) else x
    less = x - x.amax(dim, keepdim=True)
    return less - less.exp().sum(dim, keepdim=True).log()


def largest_with_place(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amax(dim, keepdim), x.argmax(dim, keepdim)


def smallest_with_place(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amin(dim, keepdim), x.argmin(dim, keepdim)


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> Any:
    return torch.topk(x, x.shape[dim], dim, largest=descending)


def kth_smallest(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, places = torch.topk(x, k, dim, largest=False)
    chosen = [aten.slice.Tensor(found, dim, k - 1, k) for found in (values, places)]
    first, second = chosen if keepdim else [found.squeeze(dim) for found in chosen]
    return first, second


def median(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return kth_smallest(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def running(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return a running reduction along an axis, which combines its entries one after the other."""
    return lambda x, dim, *_, **__: torch.cat(list(accumulate(torch.split(x, 1, dim), function)), dim)


def running_with_places(better: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Return a running maximum or minimum and its places; `better` says where an entry replaces the one so far."""

    def function(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        entries = torch.split(x, 1, dim)
        values, places = [entries[0]], [torch.zeros_like(entries[0], dtype=torch.int64)]
        for index, entry in enumerate(entries[1:], 1):
            replaced = better(entry, values[-1])
            values.append(torch.where(replaced, entry, values[-1]))
            places.append(torch.where(replaced, index, places[-1]))
        return torch.cat(values, dim), torch.cat(places, dim)

    return function


def add_exponents(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)); the limits keep the difference of two infinities out."""
    larger = torch.maximum(a, b)
    return larger + (torch.minimum(a, b) - larger.clamp(-LARGEST, LARGEST)).exp().log1p()


def log_of_sum_of_exponents(x: Tensor, dims: Dims, keepdim: bool = False) -> Tensor:
    x = x if x.is_floating_point() else x.to(torch.float32)
    axes = _axes(x, dims)
    largest = x.amax(axes, True).clamp(-LARGEST, LARGEST)
    return (x - largest).exp().sum(axes, keepdim).log() + (largest if keepdim else largest.squeeze(axes))


def distances(a: Tensor, b: Tensor, p: float, _: int | None = None) -> Tensor:
    """The distance of each row of `a` `(..., n, d)` from each row of `b` `(..., m, d)`, `(..., n, m)`."""
    return norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


def distances_of_pairs(x: Tensor, p: float = 2) -> Tensor:
    """The distances of each row of `x` `(n, d)` from all after it, `(n * (n - 1) / 2,)`."""
    first, second = torch.triu_indices(len(x), len(x), 1)
    return norm(x.index_select(0, first) - x.index_select(0, second), p, -1)


every_of = partial(any_of, every=True)
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.mean.default: lambda x, *, dtype=None: x.mean(list(range(x.ndim)), dtype=dtype),
    aten.sum.default: lambda x, *, dtype=None: x.sum(list(range(x.ndim)), dtype=dtype),
    aten.any.default: any_of,
    aten.any.dim: any_of,
    aten.any.dims: any_of,
    aten.all.default: every_of,
    aten.all.dim: every_of,
    aten.all.dims: every_of,
    aten.prod.default: lambda x, *, dtype=None: x.flatten().prod(0, dtype=dtype),
    aten.var.correction: variance,
    aten.var.dim: lambda x, dims=None, unbiased=True, keepdim=False: variance(x, dims, correction=float(unbiased), keepdim=keepdim),
    aten.var_mean.correction: variance_and_mean,
    aten.linalg_vector_norm.default: norm,
    aten.dist.default: lambda a, b, p=2: norm(a - b, p),
    aten._softmax.default: lambda x, dim, to_float: x.softmax(dim, torch.float32 if to_float else None),
    aten.log_softmax.int: log_softmax,
    aten._log_softmax.default: log_softmax,
    aten.max.default: lambda x: x.amax(tuple(range(x.ndim))),
    aten.min.default: lambda x: x.amin(tuple(range(x.ndim))),
    aten.max.dim: largest_with_place,
    aten.min.dim: smallest_with_place,
    aten.sort.default: sort,
    aten.kthvalue.default: kth_smallest,
    aten.median.dim: median,
    aten.median.default: lambda x: median(x.flatten(), 0)[0],
    aten.cummax.default: running_with_places(torch.ge),
    aten.cummin.default: running_with_places(torch.le),
    aten.cumprod.default: running(torch.mul),
    aten.logcumsumexp.default: running(add_exponents),
    aten.logaddexp.default: add_exponents,
    aten.logsumexp.default: log_of_sum_of_exponents,
    aten._cdist_forward.default: distances,
    aten._pdist_forward.default: distances_of_pairs,
}
