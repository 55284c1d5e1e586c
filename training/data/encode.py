"""Frames to video files, through PyAV."""

from collections.abc import Sequence
from pathlib import Path

import av

from clipstep.runtime.video import Frame


def write_video(path: Path, frames: Sequence[Frame], rate: int) -> None:
    """``(H, W, 3)`` uint8 RGB frames of even height and width as H.264, so good that its artefacts hardly show."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
