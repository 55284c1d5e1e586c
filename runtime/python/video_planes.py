"""Decoded frames, or parts of them, resized as planes of luma and chroma and converted to RGB afterwards, when few pixels are left."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormatComponent as Component
from av.video.plane import VideoPlane

from clipstep.runtime.resize import Frame, resized_planes, rounded

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
    components = frame.format.components[:3]
    if not _has_planes(frame, components) or frame.colorspace not in SHARES:
        return None
    samples = [_samples(plane, component) for plane, component in zip(frame.planes, components, strict=False)]
    step = -(-frame.height // components[1].height), -(-frame.width // components[1].width)
    luma = resized_planes(samples[:1], rows, columns, (1, 1), shape)[:, 0]
    blue, red = resized_planes(samples[1:], rows, columns, step, shape).swapaxes(0, 1)
    full = frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")
    factors = _conversion(frame.colorspace, components[0].bits, full=full)
    luma = luma * factors.luma
    pixels = np.empty((*shape, 3), np.uint8)
    for channel, levels in enumerate((red * factors.red, blue * factors.green_blue + red * factors.green_red, blue * factors.blue)):
        levels += luma
        levels += factors.offsets[channel]
        pixels[..., channel] = rounded(levels)
    return pixels


def _has_planes(frame: av.VideoFrame, components: Sequence[Component]) -> bool:
    """Whether a frame has planes of luma and chroma, of bytes or little-endian words."""
    kind = frame.format
    return (
        kind.is_planar
        and not kind.is_rgb
        and not kind.is_big_endian
        and [component.plane for component in components] == [0, 1, 2]
        and len({component.bits for component in components}) == 1
    )


def _samples(plane: VideoPlane, component: Component) -> npt.NDArray[Any]:
    """Return the samples of a plane, `(h, w)` uint8 or uint16, without copying them."""
    kind = np.dtype(np.uint8 if component.bits == 8 else "<u2")
    return np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)[: component.height, : component.width]


class _Conversion(NamedTuple):
    """What samples of luma and of the two kinds of chroma are multiplied by for levels of red, green and blue, and what is added then. These are
    Python's numbers, which leave arrays in float32."""

    luma: float
    red: float
    green_blue: float
    green_red: float
    blue: float
    offsets: tuple[float, float, float]


@lru_cache
def _conversion(matrix: int, bits: int, *, full: bool) -> _Conversion:
    """Return the conversion of samples of so many bits, by the formulas of ITU-T H.273."""
    of_red, of_blue = SHARES[matrix]
    of_green = 1 - of_red - of_blue
    unit = 1 << (bits - 8)
    luma, chroma, black = (255 / (256 * unit - 1), 255 / (256 * unit - 1), 0) if full else (255 / (219 * unit), 255 / (224 * unit), 16 * unit)
    blue, red = 2 * (1 - of_blue) * chroma, 2 * (1 - of_red) * chroma
    green_blue, green_red = -blue * of_blue / of_green, -red * of_red / of_green
    at_red, at_green, at_blue = (-luma * black - 128 * unit * factor for factor in (red, green_blue + green_red, blue))
    return _Conversion(luma, red, green_blue, green_red, blue, (at_red, at_green, at_blue))
