"""The pixels of decoded frames, or a square of them: upright RGB with square pixels, deinterlaced, in the colours that the video is tagged with."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from clipstep.runtime import video_hdr
from clipstep.runtime.resize import Box, Frame, crop_resize
from clipstep.runtime.video_planes import resized_part

BT709, UNTAGGED, RESERVED, BT601, BT2020, BT2020_CONSTANT_LUMINANCE = 1, 2, 3, 6, 9, 10
"""Matrix coefficients of ITU-T H.273, as videos are tagged with them."""
HD_ROWS, HD_COLUMNS = 720, 1280
"""An untagged video that has so many rows or columns is BT.709, a smaller one BT.601, as players decide it."""
BILINEAR, POINT, FULL_CHROMA, ACCURATE_ROUNDING = 0x2, 0x10, 0x2000, 0x40000
"""Flags of FFmpeg's swscale. With the last two it is within 1 level of the definition, instead of 3. With `POINT`, and if chroma is said to lie in
the middle of its pixels, a sample of it belongs to these pixels alone, as in Kotlin."""
EXACT = FULL_CHROMA | ACCURATE_ROUNDING

ASPECT_LIMIT = 10
"""By how much one side of a pixel may be longer than the other; a larger ratio is ignored: a small file could ask for an image of any size by it."""


class ImageConverter:
    """Converts the decoded frames of one video to RGB: to images, all of the first one's size, or to squares of them."""

    def __init__(self, pixel_aspect: Fraction | None, short_side: int | None) -> None:
        """`pixel_aspect`: width over height of a stored pixel; `short_side`: scale larger frames down so that their short side has so many pixels."""
        self._pixel_aspect = pixel_aspect
        self._short_side = short_side
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._orientations: dict[int, _Orientation] = {}
        self._graph: av.filter.Graph | None = None
        self._made_for: tuple[int, int, str] | None = None

    def shape(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return the height and width of a frame's image."""
        height, width = self._stored_size(frame)
        return (width, height) if self._orientation(frame).turned else (height, width)

    def square(self, frame: av.VideoFrame, box: Box, size: int) -> Frame:
        """Return the square `box` of a frame's image, `(size, size, 3)` uint8 RGB: what `crop_resize` makes of the image, but for its rounding.

        The planes of most videos are resized before they are converted, which is more exact and several times as fast.
        """
        square = None
        top, left, side = stored = self._orientation(frame).stored_box(box, *self.shape(frame))
        if _is_hdr(frame):
            square = crop_resize(self._shown_hdr(frame, stored), Box(0, 0, side), size)
        elif self._stored_size(frame) == (frame.height, frame.width):
            frame.colorspace = _matrix(frame)
            square = resized_part(frame, (top, side), (left, side), (size, size))
        if square is None:
            return crop_resize(self.image(frame), box, size)
        return np.ascontiguousarray(self._orientation(frame).upright(square))

    def _shown_hdr(self, frame: av.VideoFrame, box: Box | None = None) -> Frame:
        """Return a stored frame of HDR, or a square of it, as an SDR screen shows it."""
        frame.colorspace = _matrix(frame)
        levels = self._reformatted(frame, self._stored_size(frame), "rgb48le", BILINEAR)
        if box is not None:
            levels = levels[box.top : box.top + box.side, box.left : box.left + box.side]
        return video_hdr.tone_mapped(levels, frame.color_trc, frame.color_primaries)

    def _orientation(self, frame: av.VideoFrame) -> "_Orientation":
        """Return how the frame is turned, which is read from the first frame of each rotation alone.

        A frame whose side data was looked at refers to itself, so that its memory is freed late: a small copy is looked at.
        """
        if frame.rotation not in self._orientations:
            graph = _graph(frame, "scale", width="2", height="2", flags="neighbor")
            graph.vpush(frame)
            self._orientations[frame.rotation] = _orientation(graph.vpull())
        return self._orientations[frame.rotation]

    def _stored_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        self._size = self._size or shown_size(frame.height, frame.width, self._pixel_aspect, self._short_side)
        return self._size

    def image(self, frame: av.VideoFrame) -> Frame:
        """Return the frame upright and with square pixels, `(H, W, 3)` uint8 RGB."""
        stored, shape = (frame.height, frame.width), self._stored_size(frame)
        frame.colorspace = _matrix(frame)
        image = None
        if _is_hdr(frame):
            image = self._shown_hdr(frame)
        elif shape != stored or not _has_whole_chroma(frame):
            image = resized_part(frame, (0, frame.height), (0, frame.width), shape)
        if image is None:
            image = self._reformatted(self._centred(frame), shape, "rgb24", (POINT if shape == stored else BILINEAR) | EXACT)
        return np.ascontiguousarray(self._orientation(frame).upright(image))

    def _centred(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame with chroma said to lie in the middle of its pixels; no sample is copied."""
        properties = (frame.width, frame.height, frame.format.name)
        if self._graph is None or properties != self._made_for:
            self._graph, self._made_for = _graph(frame, "setparams", chroma_location="center"), properties
        self._graph.vpush(frame)
        centred = self._graph.vpull()
        centred.colorspace, centred.color_range = frame.colorspace, frame.color_range
        return centred

    def _reformatted(self, frame: av.VideoFrame, shape: tuple[int, int], pixels: str, how: int) -> npt.NDArray[Any]:
        height, width = shape
        return self._reformatter.reformat(frame, width, height, pixels, interpolation=how).to_ndarray()


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


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Yield the frames, from the first interlaced one on through FFmpeg's filter bwdif, which leaves progressive frames as they are."""
    graph, made_for = None, None
    for frame in frames:
        properties = (frame.width, frame.height, frame.format.name)
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None or properties != made_for:
            yield from _pulled(graph, ended=True)
            graph, made_for = _graph(frame, "bwdif", mode="send_frame", deint="interlaced"), properties
        graph.vpush(frame)
        yield from _pulled(graph)
    yield from _pulled(graph, ended=True)


def _graph(frame: av.VideoFrame, name: str, **options: str) -> av.filter.Graph:
    """Return one of FFmpeg's filters for frames like this one."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000))
    graph.link_nodes(source, graph.add(name, **options), graph.add("buffersink")).configure()
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


def _has_whole_chroma(frame: av.VideoFrame) -> bool:
    """Whether each sample of chroma has as many pixels. Otherwise, as of an odd number of columns, swscale gives some pixels their neighbours'."""
    return all(frame.height % component.height == 0 and frame.width % component.width == 0 for component in frame.format.components)


def _is_hdr(frame: av.VideoFrame) -> bool:
    return frame.color_trc in (video_hdr.PQ, video_hdr.HLG)


class _Orientation(NamedTuple):
    """How a stored frame is turned for its image: its axes are exchanged, then its rows and its columns reversed."""

    turned: bool = False
    down: int = 1
    across: int = 1

    def upright(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return (stored.swapaxes(0, 1) if self.turned else stored)[:: self.down, :: self.across]

    def stored_box(self, box: Box, height: int, width: int) -> Box:
        """Return where a square of the image, which has that height and width, is in the stored frame."""
        top = box.top if self.down > 0 else height - box.top - box.side
        left = box.left if self.across > 0 else width - box.left - box.side
        return Box(left, top, box.side) if self.turned else Box(top, left, box.side)


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """Return how the frame's display matrix turns and mirrors it, to the nearest quarter turn.

    A stored pixel `(x, y)` is shown at `(a x + c y, b x + d y)`, up to a shift (ISO/IEC 14496-12).
    """
    side_data: Any = frame.side_data  # PyAV's annotations know one key only.
    if SideDataType.DISPLAYMATRIX not in side_data:
        return _Orientation()
    (a, b, _), (c, d, _), _ = np.frombuffer(side_data[SideDataType.DISPLAYMATRIX], np.int32).reshape(3, 3).tolist()
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if turned else (a, d)
    return _Orientation(turned, -1 if down < 0 else 1, -1 if across < 0 else 1)
