"""Interpolation and sampling of images in ML Programs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.mil.settings import Numbers, expect, numbers

SAMPLING = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")


def _points(size: int, wanted: int, mode: str) -> Tensor:
    """Return the positions that are sampled along an axis, as the reference of `resize_bilinear` defines them."""
    steps = torch.arange(wanted, dtype=torch.float64)
    if mode == "ALIGN_CORNERS" and wanted == 1:
        return torch.tensor([(size - 1) / 2], dtype=torch.float64)
    if mode == "DEFAULT":
        points = steps * (size / wanted)
    elif mode == "OFFSET_CORNERS":
        points = (steps + 0.5) * (max(1, size - 1) / wanted)
    else:
        points = steps * ((size - 1) / max(1, wanted - 1))
    return points.clamp(0, size - 1)


def _matrix(size: int, wanted: int, mode: str) -> Tensor:
    """Return the matrix `(wanted, size)` that samples an axis linearly."""
    return (1 - (_points(size, wanted, mode)[:, None] - torch.arange(size)).abs()).clamp(min=0).float()


def bilinear(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    expect(mode in SAMPLING and x.ndim >= 3, f"a bilinear resize with sampling_mode {mode} of rank {x.ndim}")
    if mode in ("STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS"):
        images = x.reshape(1, -1, *x.shape[-2:])
        resized = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=mode == "STRICT_ALIGN_CORNERS")
        return resized.reshape(*x.shape[:-2], height, width)
    return _matrix(x.shape[-2], height, mode) @ x @ _matrix(x.shape[-1], width, mode).T


def nearest(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x.reshape(1, -1, *x.shape[-2:]), size=(height, width), mode="nearest").reshape(*x.shape[:-2], height, width)


def resize_bilinear(*, x: Tensor, target_size_height: int, target_size_width: int, sampling_mode: str) -> Tensor:
    return bilinear(x, target_size_height, target_size_width, sampling_mode)


def resize(*, x: Tensor, shape: Numbers, resized_dims: int, interpolation_mode: str, sampling_mode: str) -> Tensor:
    expect(resized_dims == 2 and interpolation_mode == "LINEAR", f"resize of {resized_dims} axes with interpolation_mode {interpolation_mode}")
    height, width = (size or same for size, same in zip(numbers(shape)[-2:], x.shape[-2:], strict=True))
    return bilinear(x, height, width, sampling_mode)


def upsample_bilinear(
    *,
    x: Tensor,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    expect(half_pixel_centers in (None, not align_corners), f"upsample_bilinear with align_corners and half_pixel_centers both {align_corners}")
    size = int(x.shape[-2] * scale_factor_height), int(x.shape[-1] * scale_factor_width)
    return bilinear(x, *size, "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS")


def upsample_nearest(*, x: Tensor, scale_factor_height: float, scale_factor_width: float) -> Tensor:
    return nearest(x, int(x.shape[-2] * scale_factor_height), int(x.shape[-1] * scale_factor_width))


def resample(
    *,
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    expect(coordinates_mode == "normalized_minus_one_to_one", f"resample with coordinates_mode {coordinates_mode}")
    expect(padding_mode == "border" or (padding_mode == "constant" and padding_value == 0), f"resample with padding_mode {padding_mode}")
    expect(sampling_mode in ("bilinear", "nearest"), f"resample with sampling_mode {sampling_mode}")
    padding = "border" if padding_mode == "border" else "zeros"
    return F.grid_sample(x, coordinates, sampling_mode, padding, align_corners)


IMAGES: dict[str, Callable[..., Any]] = {
    "resample": resample,
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": lambda *, x, target_size_height, target_size_width: nearest(x, target_size_height, target_size_width),
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest,
}
