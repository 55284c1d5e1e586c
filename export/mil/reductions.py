"""Reductions, running sums and sorting of ML Programs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipstep.export.mil.settings import Numbers, expect, numbers


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function of a reduction over `axes`; without `axes`, over all of them."""

    def reduced(*, x: Tensor, keep_dims: bool, axes: Numbers | None = None) -> Tensor:
        return function(x, list(range(x.ndim)) if axes is None else numbers(axes), keepdim=keep_dims)

    return reduced


def position(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def found(*, x: Tensor, axis: int, keep_dims: bool, output_dtype: str = "int32") -> Tensor:
        expect(output_dtype in ("int32", "uint16"), f"positions of type {output_dtype}")
        return function(x, axis, keepdim=keep_dims)

    return found


def _product(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def cumsum(*, x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    given = x.flip(axis) if reverse else x
    total = given.cumsum(axis)
    total = total - given if exclusive else total
    return total.flip(axis) if reverse else total


def topk(
    *,
    x: Tensor,
    k: int,
    axis: int,
    ascending: bool,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, ...]:
    """Return the largest or smallest `k` values and their positions; of equal values the first come first. Core ML does not say which do."""
    expect(output_indices_dtype in ("int32", "uint16"), f"positions of type {output_indices_dtype}")
    found = x.sort(dim=axis, descending=not ascending, stable=True)
    parts = tuple(part.narrow(axis, 0, x.shape[axis] if k == -1 else k) for part in found)
    return parts if return_indices else parts[:1]


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "argsort": lambda *, x, axis, ascending: x.sort(dim=axis, descending=not ascending, stable=True)[1],
    "cumsum": cumsum,
    "reduce_argmax": position(torch.argmax),
    "reduce_argmin": position(torch.argmin),
    "reduce_l1_norm": reduction(lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim)),
    "reduce_l2_norm": reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim).sqrt()),
    "reduce_log_sum": reduction(lambda x, axes, keepdim: x.sum(axes, keepdim=keepdim).log()),
    "reduce_log_sum_exp": reduction(torch.logsumexp),
    "reduce_max": reduction(torch.amax),
    "reduce_mean": reduction(torch.mean),
    "reduce_min": reduction(torch.amin),
    "reduce_prod": reduction(_product),
    "reduce_sum": reduction(torch.sum),
    "reduce_sum_square": reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim)),
    "topk": topk,
}
