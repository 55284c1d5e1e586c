"""Sampling at points that are computed, `grid_sample` in two and three dimensions; and resizing with antialiasing."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

LINEAR, NEAREST, CUBIC = range(3)
OFFSETS = {LINEAR: (0, 1), NEAREST: (0,), CUBIC: (-1, 0, 1, 2)}
"""How far the pixels that count lie behind the point, for each mode of `grid_sample`."""


def _linear(distance: Tensor) -> Tensor:
    return 1 - distance


def _cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """Keys' kernel for distances of 0 to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    return torch.where(distance <= 1, near, ((distance - 5) * distance + 8) * distance * a - 4 * a)


KERNELS: dict[int, Callable[[Tensor], Tensor]] = {LINEAR: _linear, CUBIC: _cubic}


def grid_sampler(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Any:
    """Sample `x` `(N, C, *sizes)` at the points of `grid` `(N, *out, axes)`, whose coordinates are from -1 to 1, the last axis first.

    `mode` is 0 for linear, 1 for nearest, 2 for cubic; `padding` is 0 for zeros, 1 for the border, 2 for reflection, as in `aten.grid_sampler_2d`.
    """
    sizes = x.shape[2:]

    def inside(point: Tensor, size: int) -> Tensor:
        return _reflected(point, size, padding, align_corners)

    points = [_pixels(grid[..., -1 - axis], size, align_corners) for axis, size in enumerate(sizes)]
    points = points if mode == CUBIC else list(map(inside, points, sizes))
    corners = [point.round() if mode == NEAREST else point.floor() for point in points]
    total: Any = 0
    for offsets in itertools.product(OFFSETS[mode], repeat=len(sizes)):
        taps = [corner + offset for corner, offset in zip(corners, offsets, strict=True)]
        places = list(map(inside, taps, sizes)) if mode == CUBIC else taps
        value = _taken(x, places)
        weight: Any = 1
        for point, tap in zip(points, taps, strict=True) if mode != NEAREST else ():
            weight = weight * KERNELS[mode]((point - tap).abs()).unsqueeze(1)
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


def resized_with_antialiasing(
    kernel: Callable[[Tensor], Tensor], reach: int, x: Tensor, size: Sequence[int], align_corners: bool, *scales: float | None
) -> Tensor:
    """Resize rows and columns by products with matrices. Where it makes an image smaller, the kernel is as wide as the pixels that become one."""
    for axis, (length, scale) in enumerate(zip(size, scales or (None, None), strict=True), start=2):
        matrix = _weights(kernel, reach, x.shape[axis], length, align_corners, scale).to(x.dtype)
        x = matrix @ x if axis == 2 else x @ matrix.T
    return x


def _weights(kernel: Callable[[Tensor], Tensor], reach: int, size: int, out: int, align_corners: bool, scale: float | None) -> Tensor:
    """Return how much of each of `size` pixels is in each of `out` pixels: `(out, size)`."""
    step = (size - 1) / max(1, out - 1) if align_corners else 1 / scale if scale else size / out
    stretch = max(1.0, step)
    centres = step * (torch.arange(out, dtype=torch.float64).unsqueeze(1) + 0.5)
    pixels = torch.arange(size, dtype=torch.float64) + 0.5
    first, end = (centres - reach * stretch + 0.5).trunc() + 0.5, (centres + reach * stretch + 0.5).trunc() + 0.5
    counts = torch.logical_and(pixels >= first, pixels < end)
    weights = torch.where(counts, kernel(((pixels - centres) / stretch).abs().clamp(max=reach)), 0.0)
    return weights / weights.sum(1, keepdim=True)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.grid_sampler_2d.default: grid_sampler,
    torch.ops.aten.grid_sampler_3d.default: grid_sampler,
    torch.ops.aten._upsample_bilinear2d_aa.default: partial(resized_with_antialiasing, _linear, 1),
    torch.ops.aten._upsample_bicubic2d_aa.default: partial(resized_with_antialiasing, partial(_cubic, a=-0.5), 2),
}
