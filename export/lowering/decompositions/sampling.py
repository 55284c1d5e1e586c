"""Sampling at points that are computed: `grid_sample` in two and three dimensions."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
            weight = weight * torch.logical_and(place >= 0, place <= size - 1).to(x.dtype).unsqueeze(1)
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


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.grid_sampler_2d.default: grid_sampler,
    torch.ops.aten.grid_sampler_3d.default: grid_sampler,
}
