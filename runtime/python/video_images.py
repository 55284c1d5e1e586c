"""The pixels of decoded frames: upright RGB with square pixels, deinterlaced, in the colours that the video is tagged with."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from clipstep.runtime import video_hdr

Frame = npt.NDArray[np.uint8]

BT709, UNTAGGED, RESERVED, BT601, BT2020, BT2020_CONSTANT_LUMINANCE = 1, 2, 3, 6, 9, 10
"""Matrix coefficients of ITU-T H.273, as videos are tagged with them."""
HD_ROWS, HD_COLUMNS = 720, 1280
"""An untagged video that has so many rows or columns is BT.709, a smaller one BT.601, as players decide it."""

ASPECT_LIMIT = 10
"""By how much one side of a pixel may be longer than the other; a larger ratio is ignored: a small file could ask for an image of any size by it."""


class ImageConverter:
    """Converts the decoded frames of one video to RGB images, all of the first one's size."""

    def __init__(self, pixel_aspect: Fraction | None, short_side: int | None) -> None:
        """`pixel_aspect`: width over height of a stored pixel; `short_side`: scale larger frames down so that their short side has so many pixels."""
        self._pixel_aspect = pixel_aspect
        self._short_side = short_side
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def image(self, frame: av.VideoFrame) -> Frame:
        """Return the frame upright and with square pixels, `(H, W, 3)` uint8 RGB."""
        self._size = self._size or shown_size(frame.height, frame.width, self._pixel_aspect, self._short_side)
        height, width = self._size
        frame.colorspace = _matrix(frame)
        hdr = frame.color_trc in (video_hdr.PQ, video_hdr.HLG)
        rgb: Any = self._reformatter.reformat(frame, width, height, "rgb48le" if hdr else "rgb24", interpolation="BILINEAR").to_ndarray()
        shown = video_hdr.tone_mapped(rgb, frame.color_trc, frame.color_primaries) if hdr else rgb
        return np.ascontiguousarray(_upright(shown, frame))


def shown_size(height: int, width: int, pixel_aspect: Fraction | None, short_side: int | None) -> tuple[int, int]:
    """Return the height and width of a stored frame as it is shown, before it is turned.

    Pixels are made square by making their shorter side longer. Then a larger frame is scaled down so that its short side has `short_side` pixels.
    """
    aspect = float(pixel_aspect or 1)
    if max(aspect, 1 / aspect) > ASPECT_LIMIT:
        aspect = 1.0
    square_height, square_width = max(height, height / aspect), max(width, width * aspect)
    scale = min(1.0, short_side / min(square_height, square_width)) if short_side else 1.0
    return round(square_height * scale), round(square_width * scale)


def deinterlaced(frames: Iterator[av.VideoFrame], stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames, from the first interlaced one on through FFmpeg's filter bwdif, which leaves progressive frames as they are."""
    graph, made_for = None, None
    for frame in frames:
        properties = (frame.width, frame.height, frame.format.name)
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None or properties != made_for:
            yield from _pulled(graph, ended=True)
            graph, made_for = _bwdif(frame, stream), properties
        graph.vpush(frame)
        yield from _pulled(graph)
    yield from _pulled(graph, ended=True)


def _bwdif(frame: av.VideoFrame, stream: av.VideoStream) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base)
    graph.link_nodes(source, graph.add("bwdif", mode="send_frame", deint="interlaced"), graph.add("buffersink")).configure()
    return graph


def _pulled(graph: av.filter.Graph | None, *, ended: bool = False) -> Iterator[av.VideoFrame]:
    """Yield what the filter has ready; or, once the video has `ended`, all that is left."""
    if graph is None:
        return
    if ended:
        graph.vpush(None)
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _matrix(frame: av.VideoFrame) -> int:
    """Return the matrix that makes RGB of a frame's colours."""
    if frame.colorspace in (UNTAGGED, RESERVED):
        return BT709 if frame.height >= HD_ROWS or frame.width >= HD_COLUMNS else BT601
    if frame.colorspace == BT2020_CONSTANT_LUMINANCE:  # FFmpeg refuses it. Phones and editors tag recordings so that do not have it.
        return BT2020
    return frame.colorspace


def _upright(image: npt.NDArray[Any], frame: av.VideoFrame) -> npt.NDArray[Any]:
    """Return the image turned and mirrored as the frame's display matrix asks for, to the nearest quarter turn.

    A stored pixel `(x, y)` is shown at `(a x + c y, b x + d y)`, up to a shift (ISO/IEC 14496-12).
    """
    side_data: Any = frame.side_data  # PyAV's annotations know one key only.
    if SideDataType.DISPLAYMATRIX not in side_data:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(side_data[SideDataType.DISPLAYMATRIX], np.int32).reshape(3, 3).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
