"""Write video files, with PyAV."""

from collections.abc import Sequence
from pathlib import Path

import av

from clipstep.runtime.video import Frame


def write_video(path: Path, frames: Sequence[Frame], rate: int) -> None:
    """Write RGB ``frames`` ``(H, W, 3)`` uint8 of even height and width as H.264, of a quality at which its artefacts hardly show."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
