"""Crop and resize frames, in the same way in training, in evaluation and on a stream.

It is written in numpy, without an image library, so that the other runtimes can compute the same: they differ by one level at most, where a sum of
float32 numbers in another order falls on the other side of a half.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

DOWN, ACROSS = 8, 16
"""Output pixels of a band of rows, and of columns: 1 would read the input once for each output pixel, and all of them would multiply mostly by 0."""


LARGEST_PRODUCT = 1 << 18
"""Multiplications in a matrix product: OpenBLAS computes larger ones in several threads, which takes 20 times as long while the cores are busy with
something else, such as decoding."""


class Box(NamedTuple):
    """A square of a frame: its upper left corner and its side, in pixels."""

    top: int
    left: int
    side: int


def center_box(height: int, width: int) -> Box:
    """Return the largest centred square of a frame, which evaluation and streams use."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side)


def crop_resize(frame: Frame, box: Box, size: int) -> Frame:
    """Crop the square `box` of an `(H, W, 3)` uint8 frame and resize it to `(size, size, 3)` uint8.

    The interpolation is bilinear with half-pixel centres; when it shrinks, the triangle filter is widened against aliasing. Rows come first,
    then columns, in float32, and the result is rounded half up.
    """
    crop = frame[box.top : box.top + box.side, box.left : box.left + box.side]
    if box.side == size:
        return np.ascontiguousarray(crop)
    down, across = (_bands(0, box.side, box.side, 1, size, band) for band in (DOWN, ACROSS))
    planes = np.ascontiguousarray(_weighted_rows(crop, down).swapaxes(1, 2))
    return pixels_of(_weighted_columns(planes, across).swapaxes(0, 1))


def pixels_of(levels: npt.NDArray[np.float32]) -> Frame:
    """Return pixels `(h, w, 3)` of levels `(3, h, w)`, which are rounded half up and cut to 0..255 in place."""
    levels += np.float32(0.5)
    channels = np.clip(levels, 0, 255, out=levels).astype(np.uint8)
    pixels = np.empty((*levels.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(channels):
        pixels[..., channel] = plane
    return pixels


def resized_planes(
    planes: Sequence[npt.NDArray[Any]], rows: tuple[int, int], columns: tuple[int, int], step: tuple[int, int], shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Resize a part of a picture as `crop_resize` does, given planes of it, and return them as `(h, planes, w)` float32, not rounded.

    Args:
        planes: each `(h, w)`, of one size, in which each sample belongs to `step` pixels of the picture.
        rows: the first row of the part, and how many rows it has, in pixels of the picture.
        columns: the first column of the part, and how many columns it has.
        step: how many rows and columns of pixels: (1, 1) for luma, (2, 2) for the chroma of 4:2:0.
        shape: the height and width of the result.
    """
    window = tuple(slice(start // of, (start + count - 1) // of + 1) for (start, count), of in zip((rows, columns), step, strict=True))
    crops = [plane[window] for plane in planes]
    height, width = crops[0].shape
    down = _bands(rows[0] % step[0], rows[1], height, step[0], shape[0], DOWN)
    across = _bands(columns[0] % step[1], columns[1], width, step[1], shape[1], ACROSS)
    side_by_side = crops[0] if len(crops) == 1 else np.concatenate(crops, axis=1)
    return _weighted_columns(_weighted_rows(side_by_side, down).reshape(-1, len(crops), width), across)


_Band = tuple[slice, slice, npt.NDArray[np.float32]]


def _weighted_rows(pixels: npt.NDArray[Any], bands: list[_Band]) -> npt.NDArray[np.float32]:
    """Return weighted means of `(old, w, ...)` over its first axis, by matrix products of the weights of a band and the pixels that it comes from."""
    longest = max(weights.size for _, _, weights in bands)
    most = max(1, LARGEST_PRODUCT // (longest * math.prod(pixels.shape[2:])))
    parts = [_rows_of_part(pixels[:, left : left + most], bands) for left in range(0, pixels.shape[1], most)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _rows_of_part(pixels: npt.NDArray[Any], bands: list[_Band]) -> npt.NDArray[np.float32]:
    resized = np.empty((bands[-1][0].stop, *pixels.shape[1:]), np.float32)
    rows = resized.reshape(len(resized), -1)
    buffer = np.empty((max(weights.shape[1] for _, _, weights in bands), *pixels.shape[1:]), np.float32)
    for target, source, weights in bands:
        used = buffer[: weights.shape[1]]
        used[...] = pixels[source]
        np.dot(weights, used.reshape(len(used), -1), out=rows[target])
    return resized


def _weighted_columns(pixels: npt.NDArray[np.float32], bands: list[_Band]) -> npt.NDArray[np.float32]:
    """Return weighted means of `(..., old)` over its last axis, in the same way."""
    rows = pixels.reshape(-1, pixels.shape[-1])
    resized = np.empty((len(rows), bands[-1][0].stop), np.float32)
    most = max(1, LARGEST_PRODUCT // max(weights.size for _, _, weights in bands))
    for top in range(0, len(rows), most):
        part, out = rows[top : top + most], resized[top : top + most]
        for target, source, weights in bands:
            np.matmul(part[:, source], weights.T, out=out[:, target])
    return resized.reshape(*pixels.shape[:-1], -1)


@lru_cache(maxsize=64)
def _bands(start: int, count: int, length: int, step: int, size: int, band: int) -> list[_Band]:
    """Return how `size` pixels are weighted means of an axis of `length` samples, each of which belongs to `step` pixels of the picture.

    They show `count` pixels from the one of number `start` on. A band of `band` pixels is the slices of its results and of its samples, and the
    part `(results, samples)` of the weights that has numbers other than 0.
    """
    weights = np.zeros((size, length), np.float32)
    belongs = np.minimum(np.arange(start, start + count) // step, length - 1)
    np.add.at(weights.T, belongs, _triangle_weights(count, size).T)
    order: Literal["C", "F"] = "C" if band == DOWN else "F"  # BLAS is slow for the transpose of a small matrix that is stored by rows.
    bands = []
    for first in range(0, size, band):
        part = weights[first : first + band]
        used = np.flatnonzero(part.any(axis=0))
        source = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((slice(first, first + len(part)), source, np.array(part[:, source], order=order)))
    return bands


def _triangle_weights(old: int, new: int) -> npt.NDArray[np.float32]:
    """Return weights `(new, old)`: each row holds the weights of the input pixels for one output pixel, and sums to 1."""
    step = old / new
    centers = (np.arange(new) + 0.5) * step - 0.5
    distance = np.abs(np.arange(old)[None, :] - centers[:, None]) / max(step, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    normalised: npt.NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised
