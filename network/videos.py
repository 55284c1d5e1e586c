"""A video as the subclips that a network takes: non-overlapping runs of T frames, cropped and resized.

A network of 3 channels takes RGB frames, one of 2 the optical flow between them.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clipstep.network.preprocess import FLOW, RGB
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install import install_extra
from clipstep.runtime.resize import Box, center_box, crop_resize
from clipstep.runtime.video import Frame, read_frames


def read_subclips(path: Path, frames: int, size: int, channels: int = RGB, box: Callable[[int, int], Box] = center_box) -> Tensor:
    """All whole subclips of a video, ``(S, T, size, size, channels)`` uint8; frames left over at the end are dropped.

    ``box`` chooses what is cropped, given the video's height and width; the centre is what evaluation and streams see.

    Raises:
        VideoError: the video cannot be read, or has fewer than ``frames`` frames.
    """
    return read_views(path, frames, size, channels, [box])[0]


def read_views(path: Path, frames: int, size: int, channels: int, boxes: Sequence[Callable[[int, int], Box]]) -> list[Tensor]:
    """As ``read_subclips``, once for each of several boxes; the video is decoded once."""
    source = read_frames(path, whole=frames)
    first = next(source)
    squares = [box(*first.shape[:2]) for box in boxes]
    views: list[list[Frame]] = [[] for _ in squares]
    for frame in chain([first], source):
        for view, square in zip(views, squares, strict=True):
            view.append(crop_resize(frame, square, size))
    return [as_channels(as_subclips(np.stack(view), frames), channels) for view in views]


def as_channels(subclips: Tensor, channels: int) -> Tensor:
    """What a network of so many channels sees of consecutive RGB subclips ``(S, T, size, size, 3)`` uint8: them, or their flow.

    Raises:
        ClipstepError: videos have no such number of channels, or optical flow is asked for without OpenCV.
    """
    if channels == RGB:
        return subclips
    if channels != FLOW:
        raise ClipstepError("no input has so many channels", got=channels, expected=f"{RGB} (RGB frames) or {FLOW} (optical flow)")
    try:
        from clipstep.network.flow import optical_flow
    except ModuleNotFoundError as error:
        raise ClipstepError("optical flow needs OpenCV, which is not installed", fix=install_extra("training")) from error
    return as_subclips(optical_flow(subclips.flatten(0, 1).numpy()), subclips.shape[1])


def as_subclips(every: npt.NDArray[np.uint8], frames: int) -> Tensor:
    """Consecutive frames ``(S * T, H, W, channels)`` as subclips of ``frames`` each, ``(S, T, H, W, channels)``."""
    return torch.from_numpy(every).reshape(-1, frames, *every.shape[1:])
