"""Which operators are decomposed into others before the lowering: by PyTorch's own decompositions, or by those here where it has none.

A decomposition here is a function of tensors of any rank, like PyTorch's. It returns NotImplemented for a setting that it does not cover, and
the operator then stays whole.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from clipstep.export.lowering.rules import RULES

aten = torch.ops.aten
WHOLE = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.max_pool2d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_bicubic2d.vec,
}
"""Operators on values of rank 4 or less that engines have kernels for; those that have a rule stay whole as well."""


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions of all operators that have neither a rule nor a kernel of their own."""
    table = torch.export.default_decompositions()
    return {operator: table[operator] for operator in table if operator not in RULES and operator not in WHOLE} | OWN


def embedding(weight: Tensor, indices: Tensor, *_: Any) -> Tensor:
    return weight.index_select(0, indices.reshape(-1)).reshape(*indices.shape, -1)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """A ReLU, and one of the negative side times its slope, which engines compute without masks."""
    slope = weight.reshape([1, -1, *[1] * (x.ndim - 2)]) if weight.numel() > 1 else weight.reshape([1] * x.ndim)
    return x.relu() - (-x).relu() * slope


def celu(x: Tensor, alpha: float = 1.0) -> Any:
    return aten.elu.default(x / alpha) * alpha


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


def distances(a: Tensor, b: Tensor, p: float, _: int | None = None) -> Tensor:
    """The distance of each row of `a` `(..., n, d)` from each row of `b` `(..., m, d)`, `(..., n, m)`."""
    found: Tensor = torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)
    return found


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Replace the elements where the mask is true by the first elements of `source`, in their order."""
    chosen, value = mask.expand_as(x).reshape(-1), x.reshape(-1)
    places = (chosen.to(torch.int64).cumsum(0) - 1).clamp_min(0)
    return torch.where(chosen, source.reshape(-1).index_select(0, places), value).reshape(x.shape)


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


def grid_sampler(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Any:
    """Sample `x` `(N, C, *sizes)` at the points of `grid` `(N, *out, axes)`, whose coordinates are from -1 to 1, the last axis first.

    `mode` is 0 for linear, 1 for nearest; `padding` is 0 for zeros, 1 for the border, 2 for reflection, as in `aten.grid_sampler_2d`.
    """
    if mode not in (0, 1):
        return NotImplemented
    sizes = x.shape[2:]
    points = [_reflected(_pixels(grid[..., -1 - axis], size, align_corners), size, padding, align_corners) for axis, size in enumerate(sizes)]
    corners = [point.round() if mode else point.floor() for point in points]
    total: Any = 0
    for offsets in [(0,) * len(sizes)] if mode else itertools.product((0, 1), repeat=len(sizes)):
        places = [corner + offset for corner, offset in zip(corners, offsets, strict=True)]
        value = _taken(x, places)
        weight: Any = 1
        for point, place in zip(points, places, strict=True) if not mode else ():
            weight = weight * (1 - (point - place).abs()).unsqueeze(1)
        for place, size in zip(places, sizes, strict=True) if padding == 0 else ():
            weight = weight * ((place >= 0) & (place <= size - 1)).to(x.dtype).unsqueeze(1)
        total = total + value * weight
    return total


def _pixels(coordinates: Tensor, size: int, align_corners: bool) -> Tensor:
    return (coordinates + 1) * ((size - 1) / 2) if align_corners else ((coordinates + 1) * size - 1) / 2


def _reflected(point: Tensor, size: int, padding: int, align_corners: bool) -> Tensor:
    if padding == 0:
        return point
    if padding == 2:
        low, span = (0.0, size - 1) if align_corners else (-0.5, size)
        if span:
            beyond = (point - low).abs()
            rest = beyond - (beyond / (2 * span)).floor() * (2 * span)
            point = low + torch.minimum(rest, 2 * span - rest)
        else:
            point = point * 0
    return point.clamp(0, size - 1)


def _taken(x: Tensor, places: list[Tensor]) -> Tensor:
    """Return the elements of `x` `(N, C, *sizes)` at places `(N, *out)` along each axis, those beyond an end at that end: `(N, C, *out)`."""
    sizes, out = x.shape[2:], places[0].shape[1:]
    joined: Any = 0
    for place, size in zip(places, sizes, strict=True):
        joined = joined * size + place.clamp(0, size - 1).to(torch.int64)
    index = joined.reshape(len(x), 1, -1).expand(-1, x.shape[1], -1)
    return x.reshape(*x.shape[:2], math.prod(sizes)).gather(2, index).reshape(*x.shape[:2], *out)


OWN: dict[Any, Callable[..., Any]] = {
    aten.embedding.default: embedding,
    aten.prelu.default: prelu,
    aten.celu.default: celu,
    aten.bucketize.Tensor: bucketize,
    aten.searchsorted.Tensor: searchsorted,
    aten._cdist_forward.default: distances,
    aten.masked_scatter.default: masked_scatter,
    aten._native_batch_norm_legit.no_stats: batch_norm_of_batch,
    aten.grid_sampler_2d.default: grid_sampler,
    aten.grid_sampler_3d.default: grid_sampler,
    torch.ops.prims.copy_strided.default: lambda x, _: x.clone(),
}
