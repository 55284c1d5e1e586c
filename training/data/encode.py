"""Write video files, with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from clipstep.runtime.resize import Frame


def write_video(path: Path, frames: Sequence[Frame], rate: int | Fraction) -> None:
    """Write RGB ``frames`` ``(H, W, 3)`` uint8 of even height and width as H.264, of a quality at which its artefacts hardly show.

    x264 works without vector instructions: with them the same frames gave different files now and then.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "x264-params": "asm=0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
