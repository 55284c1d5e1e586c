"""Crop and resize frames, in the same way in training, in evaluation and on a stream.

It is written in numpy, without an image library, so that the other runtimes can compute the same: they differ by one level at most, where a sum of
float32 numbers in another order falls on the other side of a half.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipstep.runtime.video_images import Frame

BAND = 8
"""Output pixels of a band: 1 would read the input once for each output pixel, and all of them would multiply mostly by 0."""


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
    rows = _resize_first_axis(crop, size)
    columns = _resize_first_axis(np.ascontiguousarray(rows.swapaxes(0, 1)), size)
    resized = (columns + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(resized.swapaxes(0, 1))


def _resize_first_axis(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32], new: int) -> npt.NDArray[np.float32]:
    """Resize `(old, ...)` to `(new, ...)` by a matrix product for each band of output pixels and the input pixels that it is computed from."""
    resized = np.empty((new, *pixels.shape[1:]), np.float32)
    for target, source, weights in _bands(len(pixels), new):
        band = pixels[source].astype(np.float32, copy=False)
        np.matmul(weights, band.reshape(len(band), -1), out=resized[target].reshape(len(weights), -1))
    return resized


@lru_cache(maxsize=64)
def _bands(old: int, new: int) -> list[tuple[slice, slice, npt.NDArray[np.float32]]]:
    """Return for each band the slices of its output and its input pixels, and the part of the weights that has numbers other than 0."""
    weights, bands = _triangle_weights(old, new), []
    for first in range(0, new, BAND):
        part = weights[first : first + BAND]
        used = np.flatnonzero(part.any(axis=0))
        source = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((slice(first, first + len(part)), source, np.ascontiguousarray(part[:, source])))
    return bands


def _triangle_weights(old: int, new: int) -> npt.NDArray[np.float32]:
    """Return weights `(new, old)`: each row holds the weights of the input pixels for one output pixel, and sums to 1."""
    step = old / new
    centers = (np.arange(new) + 0.5) * step - 0.5
    distance = np.abs(np.arange(old)[None, :] - centers[:, None]) / max(step, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    normalised: npt.NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised
