"""Axes of size 1, choices, lookups, assignments, shifts of bits and shuffles of pixels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def squeeze(x: Tensor) -> Tensor:
    return x.squeeze([axis for axis, size in enumerate(x.shape) if size == 1])


def embedding(weight: Tensor, indices: Tensor, *_: Any) -> Tensor:
    return weight.index_select(0, indices.reshape(-1)).reshape(*indices.shape, -1)


def bucketize(x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Count the boundaries below each element; those equal to it count as well if `right`."""
    below = (torch.ge if right else torch.gt)(x.unsqueeze(-1), boundaries)
    return below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def searchsorted(
    boundaries: Tensor, x: Tensor, *, out_int32: bool = False, right: bool = False, side: str | None = None, sorter: Tensor | None = None
) -> Any:
    if boundaries.ndim != 1 or sorter is not None:
        return NotImplemented
    return bucketize(x, boundaries, out_int32=out_int32, right=right or side == "right")


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Replace the elements where the mask is true by the first elements of `source`, in their order."""
    chosen, value = mask.expand_as(x).reshape(-1), x.reshape(-1)
    places = (chosen.to(torch.int64).cumsum(0) - 1).clamp_min(0)
    return torch.where(chosen, source.reshape(-1).index_select(0, places), value).reshape(x.shape)


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    *leading, channels, height, width = x.shape
    split = x.reshape(*leading, channels // factor**2, factor, factor, height, width)
    k = len(leading)
    return split.permute(*range(k + 1), k + 3, k + 1, k + 4, k + 2).reshape(*leading, channels // factor**2, height * factor, width * factor)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    *leading, channels, height, width = x.shape
    split = x.reshape(*leading, channels, height // factor, factor, width // factor, factor)
    k = len(leading)
    return split.permute(*range(k + 1), k + 2, k + 4, k + 1, k + 3).reshape(*leading, channels * factor**2, height // factor, width // factor)


def shift_left(x: Tensor, places: int) -> Tensor:
    return x * (1 << places)


def shift_right(x: Tensor, places: int) -> Tensor:
    return torch.div(x, 1 << places, rounding_mode="floor")


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.where.Scalar: lambda chosen, x, y: torch.where(chosen, torch.full((), x), torch.full((), y)),
    aten.where.ScalarSelf: lambda chosen, x, y: torch.where(chosen, torch.full((), x, dtype=y.dtype), y),
    aten.where.ScalarOther: lambda chosen, x, y: torch.where(chosen, x, torch.full((), y, dtype=x.dtype)),
    aten.__and__.Tensor: torch.bitwise_and,
    aten.__or__.Tensor: torch.bitwise_or,
    aten.__xor__.Tensor: torch.bitwise_xor,
    aten.__lshift__.Scalar: shift_left,
    aten.__rshift__.Scalar: shift_right,
    aten.bitwise_left_shift.Tensor_Scalar: shift_left,
    aten.bitwise_right_shift.Tensor_Scalar: shift_right,
    aten.squeeze.default: squeeze,
    aten.embedding.default: embedding,
    aten.bucketize.Tensor: bucketize,
    aten.searchsorted.Tensor: searchsorted,
    aten.copy.default: lambda x, source, *_: source.to(x.dtype).expand(x.shape),
    aten.masked_scatter.default: masked_scatter,
    torch.ops.prims.copy_strided.default: lambda x, _: x.clone(),
}
