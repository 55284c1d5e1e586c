"""Sample frames for a network that has none of its own: from a video or a file of numbers, or made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipstep.network.inputs import NetworkInput, Video
from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle.manifest import FrameSource
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_file
from clipstep.runtime.synthetic_frames import synthetic_input

SAMPLE_SUBCLIPS = 8
NUMBERS = ".npy"
"""The suffix of a file of sample frames that are no video."""


def sample_frames(
    given: NetworkInput, frames: int, size: int, path: Path | None, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, FrameSource]:
    """Return sample subclips `(S, *shape)` of the network's input, and what they are.

    Args:
        given: what a frame is.
        frames: T, the frames of a subclip.
        size: height and width of a frame, in pixels.
        path: a video, whose first subclips are taken; or a `.npy` file of frames `(n, *frame)` or subclips `(S, T, *frame)`; None to make some:
            synthetic scenes, or joints that move.
        mean: what is subtracted from each channel.
        std: what each channel is then divided by.

    Raises:
        ClipstepError: the file cannot be read, is shorter than a subclip, or holds something else than the network takes.
    """
    shape = given.shape(frames, size, len(mean))
    if path is not None and path.suffix == NUMBERS:
        return torch.from_numpy(_stored(path, shape)), "sample"
    if path is not None:
        if not isinstance(given, Video):
            raise ClipstepError(
                f"{path}: a video has no {given.kind} like the network's", expected=f"a {NUMBERS} file of frames {shape[1:]} {given.dtype}"
            )
        return read_subclips(path, frames, size, len(mean))[:SAMPLE_SUBCLIPS], "video"
    return torch.from_numpy(synthetic_input(given.kind, SAMPLE_SUBCLIPS, shape, given.dtype, mean, std)), "synthetic"


def _stored(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the subclips in a file of `numpy.save`; frames that do not fill the last one are left out."""
    check_file(path, "a file of frames")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ClipstepError(f"{path}: cannot be read", got=str(error), expected="an array that numpy.save wrote") from error
    if values.ndim == len(shape):
        values = values[: len(values) // shape[0] * shape[0]].reshape(-1, shape[0], *values.shape[1:])
    return np.ascontiguousarray(values)
