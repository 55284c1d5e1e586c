"""Decoded frames, or parts of them, resized as planes of luma and chroma and converted to RGB afterwards, when few pixels are left."""

from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane

from clipstep.runtime.resize import Frame, pixels_of, resized_planes

SHARES = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""The shares of red and blue in luma, by the matrix coefficients of ITU-T H.273."""
FULL_RANGE = 2


def resized_part(frame: av.VideoFrame, rows: tuple[int, int], columns: tuple[int, int], shape: tuple[int, int]) -> Frame | None:
    """Return a part of a stored frame, resized as by `crop_resize`, `(*shape, 3)` uint8 RGB.

    A sample of chroma belongs to all pixels that it was made of, as in the Kotlin runtime. The frame's `colorspace` tells the matrix. `rows` and
    `columns` are the first one of the part and their number.

    Returns:
        None for a frame that has not one plane each of luma and of two kinds of chroma, or another matrix: RGB, grey, packed formats.
    """
    layout = _layout(frame.format.name, frame.width, frame.height)
    if layout is None or frame.colorspace not in SHARES:
        return None
    y, u, v = (_samples(plane, layout.kind, size) for plane, size in zip(frame.planes, layout.sizes, strict=False))
    planes = np.empty((3, *shape), np.float32)
    planes[:1] = resized_planes((y,), rows, columns, (1, 1), shape).swapaxes(0, 1)
    planes[1:] = resized_planes((u, v), rows, columns, layout.step, shape).swapaxes(0, 1)
    factors, offsets = _conversion(frame.colorspace, layout.bits, full=layout.full or frame.color_range == FULL_RANGE)
    levels = np.empty_like(planes)
    np.matmul(factors, planes.swapaxes(0, 1), out=levels.swapaxes(0, 1))  # Row by row, because of LARGEST_PRODUCT.
    levels += offsets
    return pixels_of(levels)


class _Layout(NamedTuple):
    """How luma and chroma are stored in frames of one format and size."""

    sizes: tuple[tuple[int, int], ...]
    """The height and width of the three planes."""
    step: tuple[int, int]
    """The rows and columns of pixels that a sample of chroma belongs to."""
    kind: np.dtype[Any]
    bits: int
    full: bool
    """Whether the format itself says that samples use their full range."""


@lru_cache
def _layout(pixels: str, width: int, height: int) -> _Layout | None:
    """Return the layout of frames that have planes of luma and chroma, of bytes or little-endian words, or else None."""
    kind = av.VideoFormat(pixels, width, height)
    components = kind.components[:3]
    if not kind.is_planar or kind.is_rgb or kind.is_big_endian or [component.plane for component in components] != [0, 1, 2]:
        return None
    if len({component.bits for component in components}) != 1:
        return None
    sizes = tuple((component.height, component.width) for component in components)
    bits = components[0].bits
    step = -(-height // sizes[1][0]), -(-width // sizes[1][1])
    return _Layout(sizes, step, np.dtype(np.uint8 if bits == 8 else "<u2"), bits, pixels.startswith("yuvj"))


def _samples(plane: VideoPlane, kind: np.dtype[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the samples of a plane, `(h, w)`, without copying them."""
    return np.ndarray(size, kind, memoryview(plane), strides=(plane.line_size, kind.itemsize))


@lru_cache
def _conversion(matrix: int, bits: int, *, full: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the conversion of samples of so many bits, by the formulas of ITU-T H.273.

    Returns:
        The factors `(3, 3)` by which samples of luma and of the blue and the red chroma become levels of red, green and blue, and what is then added
        to each level, `(3, 1, 1)`.
    """
    of_red, of_blue = SHARES[matrix]
    of_green = 1 - of_red - of_blue
    unit = 1 << (bits - 8)
    luma, chroma, black = (255 / (256 * unit - 1), 255 / (256 * unit - 1), 0) if full else (255 / (219 * unit), 255 / (224 * unit), 16 * unit)
    blue, red = 2 * (1 - of_blue) * chroma, 2 * (1 - of_red) * chroma
    factors = np.array([[luma, 0, red], [luma, -blue * of_blue / of_green, -red * of_red / of_green], [luma, blue, 0]])
    offsets = -factors @ [black, 128 * unit, 128 * unit]
    return factors.astype(np.float32), offsets.astype(np.float32).reshape(3, 1, 1)
