"""Axes of size 1, paddings, choices, lookups, assignments, shifts of bits and shuffles of pixels."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def squeeze(x: Tensor) -> Tensor:
    return x.squeeze([axis for axis, size in enumerate(x.shape) if size == 1])


def pad(x: Tensor, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Cut off what negative amounts remove, and pad with the rest."""
    if mode != "constant" or min(amounts) >= 0:
        return NotImplemented
    for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        if before < 0 or after < 0:
            x = aten.slice.Tensor(x, x.ndim - 1 - place, max(0, -before), after if after < 0 else sys.maxsize)
    added = [max(0, amount) for amount in amounts]
    return F.pad(x, added, value=value) if any(added) else x


def constant_pad(x: Tensor, amounts: Sequence[int], value: float = 0.0) -> Any:
    return pad(x, amounts, value=value)


def embedding(weight: Tensor, indices: Tensor, *_: Any) -> Tensor:
    return weight.index_select(0, indices.reshape(-1)).reshape(*indices.shape, -1)


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """Add up the rows of each bag, which begins at one offset and ends before the next: a product of rows with a matrix of 0 and 1.

    `mode` is 0 for the sum, 1 for the mean and 2 for the largest of each column. The other three results are of use to gradients alone.
    """
    rows = weight.index_select(0, indices)
    rows = rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(1)
    starts = (offsets[:-1] if include_last_offset else offsets).unsqueeze(1)
    place = torch.arange(len(indices))
    inside = torch.logical_and(place >= starts, (place >= starts).sum(0) == torch.arange(1, len(starts) + 1).unsqueeze(1))
    inside = torch.logical_and(inside, indices != padding_idx).to(weight.dtype)
    count = inside.sum(1, keepdim=True)
    if mode == 2:
        kept = rows.unsqueeze(0) * inside.unsqueeze(2) + (inside.unsqueeze(2) - 1) * torch.finfo(weight.dtype).max
        result = torch.where(count > 0, kept.amax(1), 0.0)
    else:
        result = inside @ rows / (count.clamp_min(1) if mode == 1 else 1)
    return result, offsets, offsets, offsets


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
    aten.pad.default: pad,
    aten.constant_pad_nd.default: constant_pad,
    aten.embedding.default: embedding,
    aten._embedding_bag.default: embedding_bag,
    aten._embedding_bag_forward_only.default: embedding_bag,
    aten.bucketize.Tensor: bucketize,
    aten.searchsorted.Tensor: searchsorted,
    aten.copy.default: lambda x, source, *_: source.to(x.dtype).expand(x.shape),
    aten.masked_scatter.default: masked_scatter,
    torch.ops.prims.copy_strided.default: lambda x, _: x.clone(),
}
