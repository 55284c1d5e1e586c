"""The frames of a video in RGB, computed from the decoded luma and chroma by the definition."""

from pathlib import Path

import av
import numpy as np


def decoded(path: Path) -> list[np.ndarray]:
    """The frames of a small H.264 video by the definition of BT.601, each sample of chroma for its two by two pixels."""
    frames = []
    with av.open(str(path)) as container:
        for decoded in container.decode(video=0):
            planes, height, width = decoded.to_ndarray(format="yuv420p"), decoded.height, decoded.width
            y, chroma = planes[:height].astype(float), planes[height:].reshape(2, height // 2, width // 2).astype(float)
            y, (u, v) = (y - 16) * 255 / 219, (chroma.repeat(2, 1).repeat(2, 2) - 128) * 255 / 224
            rgb = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], axis=-1)
            frames.append((rgb + 0.5).clip(0, 255).astype(np.uint8))
    return frames
