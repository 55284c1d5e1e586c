"""Sample frames for a network that has none of its own: from a video, or synthetic."""

from pathlib import Path

import torch
from torch import Tensor

from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle.manifest import FrameSource
from clipstep.runtime.synthetic_frames import synthetic_subclips

SAMPLE_SUBCLIPS = 8


def sample_frames(frames: int, size: int, video: Path | None) -> tuple[Tensor, FrameSource]:
    """Return sample subclips `(S, T, size, size, 3)` uint8, and what they are: the first subclips of the video, or without one synthetic scenes.

    Raises:
        VideoError: the video cannot be read, or is shorter than a subclip.
    """
    if video is not None:
        return read_subclips(video, frames, size)[:SAMPLE_SUBCLIPS], "video"
    return torch.from_numpy(synthetic_subclips(SAMPLE_SUBCLIPS, frames, size, size)), "synthetic"
