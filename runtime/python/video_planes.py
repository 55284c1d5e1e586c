"""Decoded frames, or parts of them, resized as planes of luma and chroma and converted to RGB afterwards, when few pixels are left."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormatComponent as Component
from av.video.plane import VideoPlane

from clipstep.runtime.resize import Frame, resized_plane, rounded

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
    parts = (
        resized_plane(_samples(plane, component), rows, columns, (-(-frame.height // component.height), -(-frame.width // component.width)), shape)
        for plane, component in zip(frame.planes, components, strict=False)
    )
    yuv = np.stack([part.ravel() for part in parts])
    matrix, black = _conversion(frame.colorspace, full=frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj"))
    levels = (matrix / np.float32(1 << (components[0].bits - 8))) @ yuv - matrix @ black
    return np.ascontiguousarray(rounded(levels).T).reshape(*shape, 3)


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


@lru_cache
def _conversion(matrix: int, *, full: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the matrix from luma and chroma to RGB, `(3, 3)`, and the levels of black, `(3, 1)`, which are subtracted first."""
    red, blue = SHARES[matrix]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    u, v = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
    rows = [[luma, 0, v], [luma, -u * blue / green, -v * red / green], [luma, u, 0]]
    return np.array(rows, np.float32), np.array([0 if full else 16, 128, 128], np.float32).reshape(3, 1)
