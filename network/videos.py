"""Reads videos as subclips: non-overlapping groups of T consecutive frames, cropped and resized. A network takes one in each step.

A network of 3 channels takes RGB frames, one of 2 channels the optical flow between them.
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
from clipstep.runtime.install_hints import install_extra
from clipstep.runtime.resize import Box, Frame, center_box
from clipstep.runtime.video import read_pictures


def read_subclips(
    path: Path,
    frames: int,
    size: int,
    channels: int = RGB,
    box: Callable[[int, int], Box] = center_box,
    *,
    fps: float | None = None,
    cut: tuple[float, float] | None = None,
) -> Tensor:
    """Read all whole subclips of a video; frames at its end that fill no subclip are dropped.

    Example:
        ```python
        subclips = read_subclips(Path("fight.mp4"), frames=16, size=112, fps=run.info.fps)
        ```

    Args:
        path: The video, of any format that FFmpeg reads.
        frames: T, the frames of a subclip.
        size: Height and width of the frames, in pixels.
        channels: 3 for RGB frames, 2 for optical flow.
        box: Returns the square to crop, given the video's height and width. By default the centre square, as in evaluation and streams.
        fps: The model's frames per second; frames are left out or repeated to get them (`read_timed_frames`). None takes every frame.
        cut: Read only the frames from the first of these seconds to before the second one.

    Returns:
        ``(S, T, size, size, channels)`` uint8.

    Raises:
        VideoError: The video cannot be read, or has fewer than ``frames`` frames (in ``cut``).
    """
    return read_views(path, frames, size, channels, [box], fps, cut=cut)[0]


def read_views(
    path: Path,
    frames: int,
    size: int,
    channels: int,
    boxes: Sequence[Callable[[int, int], Box]],
    fps: float | None,
    *,
    cut: tuple[float, float] | None = None,
) -> list[Tensor]:
    """Read the subclips once for each of ``boxes``, as `read_subclips` does; the video is decoded only once."""
    source = read_pictures(path, fps=fps, whole=frames, cut=cut)
    first = next(source)
    squares = [box(*first.shape) for box in boxes]
    views: list[list[Frame]] = [[] for _ in squares]
    for picture in chain([first], source):
        for view, square in zip(views, squares, strict=True):
            view.append(picture.square(square, size))
    return [as_channels(as_subclips(np.stack(view), frames), channels) for view in views]


def as_channels(subclips: Tensor, channels: int) -> Tensor:
    """Return consecutive RGB ``subclips`` ``(S, T, size, size, 3)`` uint8 as a network of ``channels`` takes them: unchanged, or their optical flow.

    Raises:
        ClipstepError: there is no input of that many channels, or optical flow is asked for and OpenCV is not installed.
    """
    if channels == RGB:
        return subclips
    if channels != FLOW:
        raise ClipstepError("no input has that many channels", got=channels, expected=f"{RGB} (RGB frames) or {FLOW} (optical flow)")
    try:
        from clipstep.network.flow import optical_flow
    except ModuleNotFoundError as error:
        raise ClipstepError("optical flow needs OpenCV, which is not installed", fix=install_extra("training")) from error
    return as_subclips(optical_flow(subclips.flatten(0, 1).numpy()), subclips.shape[1])


def as_subclips(video: npt.NDArray[np.uint8], frames: int) -> Tensor:
    """Return consecutive frames ``(S * T, H, W, channels)`` as subclips of ``frames`` each, ``(S, T, H, W, channels)``."""
    return torch.from_numpy(video).reshape(-1, frames, *video.shape[1:])
