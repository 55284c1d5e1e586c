"""The video with its predictions drawn over it: `--save out.mp4`."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.outputs.annotated_frames import AnnotatedFrames
from clipstep.runtime.outputs.output import Output, Source, VideoPrediction
from clipstep.runtime.outputs.sound import Sound
from clipstep.runtime.video import USUAL_RATE, Picture, frame_rate

TALLEST = 1080
"""Rows; a taller video is scaled down."""
TICKS = 90_000
"""Units of time a second, as in MPEG's own files: multiples of the usual rates' periods."""
QUALITY = {"crf": "20", "preset": "veryfast"}
HD_ROWS, BT709, BT601, STUDIO_RANGE = 720, 1, 6, 1
"""The colours of a video with so many rows are BT.709, of a smaller one BT.601; the numbers are those of ITU-T H.273 and FFmpeg."""


class AnnotatedVideo(Output):
    """Every frame of the video at its own time, with the prediction that is known then, and the sound as it is. H.264.

    A prediction appears on the first frame after its subclip. So the prediction at the end of the video is not shown.
    """

    def __init__(self, path: Path, source: Source) -> None:
        super().__init__(path, source)
        self._out = av.open(str(path), "w")
        self._is_started = False
        self._sound: Sound | None = None

    def show(self, picture: Picture) -> None:
        if not self._is_started:
            self._start(picture.shape)
            self._is_started = True
        self._encode(self._frames.draw(picture), picture.seconds)
        if self._sound is not None:
            self._sound.copy_until(picture.seconds)

    def add(self, said: VideoPrediction) -> None:
        self._frames.add(said)

    def finish(self, end: float) -> list[str]:
        self._out.mux(self._stream.encode())
        if self._sound is None:
            return []
        self._sound.copy_until(end)
        return [f"the annotated video {self._sound.remark}"] if self._sound.remark else []

    def close(self) -> None:
        if self._sound is not None:
            self._sound.close()
        self._out.close()

    def _start(self, shape: tuple[int, int]) -> None:
        """Add the stream of pictures: scaled to at most `TALLEST` rows, and without the last row or column if their number is odd."""
        self._frames = AnnotatedFrames(shape, self.source.top, (TALLEST, math.inf))
        try:
            usual = frame_rate(self.source.video) if self.source.video else USUAL_RATE  # It tells how long the last frame is shown.
            rate = Fraction(usual).limit_denominator(TICKS)
            self._stream = self._out.add_stream("libx264", rate=rate, options=QUALITY)
        except av.codec.codec.UnknownCodecError as error:
            raise ClipstepError("the FFmpeg of PyAV has no H.264 encoder", got=str(error), fix="install PyAV's own wheel: pip install av") from error
        self._stream.width, self._stream.height = self._frames.width, self._frames.height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = self._stream.time_base = Fraction(1, TICKS)
        self._matrix = BT709 if self._stream.height >= HD_ROWS else BT601
        context.colorspace, context.color_range = self._matrix, STUDIO_RANGE
        if self.source.video is not None:
            self._sound = Sound(self.source.video, self._out)

    def _encode(self, image: Image.Image, seconds: float) -> None:
        frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self._matrix, dst_color_range=STUDIO_RANGE)
        frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
        self._out.mux(self._stream.encode(frame))
