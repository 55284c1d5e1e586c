"""Data sets of videos for training and validation, cut into subclips, cropped and resized.

A network of 3 channels takes RGB frames, one of 2 channels the optical flow between them. Everything that reads videos here takes ``fps``, the
frames a second that the network is trained at, as `read_timed_frames` explains; None takes every frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipstep.network.preprocess import RGB
from clipstep.network.videos import as_channels, as_subclips, read_subclips
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.resize import Box, crop_resize
from clipstep.runtime.video import VideoError
from clipstep.training.data.cache import FrameCache, decode
from clipstep.training.data.lists import Clip

CORNER_SCALES = (1.0, 0.84, 0.71)
"""The sides of corner crops as shares of the frame's short side."""


@dataclass(frozen=True)
class Video:
    """A decoded video: its ``subclips`` ``(S, T, size, size, channels)`` uint8, and the index of its class."""

    path: Path
    subclips: Tensor
    label: int


@dataclass(frozen=True)
class BrokenVideo:
    """A video that cannot be used, and why."""

    path: Path
    reason: str


def short_side(size: int) -> int:
    """Return the short side that videos are scaled to for training, such that the smallest corner crop still has ``size`` pixels."""
    return math.ceil(size / min(CORNER_SCALES))


def corner_box(height: int, width: int, random: np.random.Generator) -> Box:
    """Return a square at one of the four corners. The corner is random, and so is the scale, one of `CORNER_SCALES`.

    Source: the paper's "crops from the four corners"; the scales are those of Wang et al., "Towards Good Practices
    for Very Deep Two-Stream ConvNets" (2015), section 3.
    """
    return corner_square(height, width, int(random.integers(4)), CORNER_SCALES[random.integers(len(CORNER_SCALES))])


def corner_square(height: int, width: int, corner: int, scale: float) -> Box:
    """Return the square at a ``corner`` (0..3, row by row) whose side is ``scale`` of the short side."""
    side = round(scale * min(height, width))
    return Box((height - side) * (corner // 2), (width - side) * (corner % 2), side)


class TrainingVideos(Dataset[Video | BrokenVideo | ClipstepError]):
    """The videos of a list, decoded on access, each in a random corner crop.

    An item is accessed by epoch and index; these and the seed alone decide its crop, so that a training that is resumed, or spread over
    processes, sees the same crops. A broken video is returned as a `BrokenVideo`. If the cache cannot be written, the error is returned
    instead of raised, because a loader's worker process would wrap it in another one.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        frames: int,
        size: int,
        channels: int = RGB,
        *,
        fps: float | None = None,
        seed: int = 0,
        flip: bool = False,
        cache: FrameCache | None = None,
    ) -> None:
        self.clips = clips
        self.frames = frames
        self.size = size
        self.channels = channels
        self.fps = fps
        self.seed = seed
        self.flip = flip
        self.read = cache.read if cache else decode

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, where: tuple[int, int]) -> Video | BrokenVideo | ClipstepError:
        epoch, index = where
        clip, random = self.clips[index], np.random.default_rng((self.seed, epoch, index))
        try:
            whole = self.read(clip.path, self.frames, short_side(self.size), self.fps, cut=clip.cut)
        except VideoError as error:
            return BrokenVideo(clip.shown_path, str(error))
        except ClipstepError as error:
            return error
        height, width = whole.shape[1:3]
        box = corner_box(height, width, random)
        subclips = as_subclips(np.stack([crop_resize(frame, box, self.size) for frame in whole]), self.frames)
        mirrored = self.flip and random.random() < 0.5
        return Video(clip.shown_path, as_channels(subclips.flip(-2) if mirrored else subclips, self.channels), clip.label)


class TestVideos(Dataset[Video | BrokenVideo]):
    """The videos of a list in the centre crop, decoded on access; a broken one is returned as a `BrokenVideo`."""

    __test__ = False  # For pytest, which takes every class named Test... for a test case.

    def __init__(self, clips: Sequence[Clip], frames: int, size: int, channels: int = RGB, *, fps: float | None = None) -> None:
        self.clips = clips
        self.frames = frames
        self.size = size
        self.channels = channels
        self.fps = fps

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Video | BrokenVideo:
        clip = self.clips[index]
        try:
            subclips = read_subclips(clip.path, self.frames, self.size, self.channels, fps=self.fps, cut=clip.cut)
            return Video(clip.shown_path, subclips, clip.label)
        except VideoError as error:
            return BrokenVideo(clip.shown_path, str(error))


def channel_statistics(
    clips: Sequence[Clip], frames: int, size: int, channels: int = RGB, *, fps: float | None = None, videos: int = 32
) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation of each channel, in 0..255, over ``videos`` clips spread evenly over the list.

    Broken videos are skipped; if all of these are broken, the first usable one of the list is taken.

    Raises:
        VideoError: none of the videos can be used.
    """
    sums = torch.zeros(2, channels, dtype=torch.float64)
    count = 0
    data = TestVideos(clips, frames, size, channels, fps=fps)
    broken: BrokenVideo | None = None
    step = -(-len(clips) // videos)
    spread = range(0, len(clips), step)
    for position, index in enumerate([*spread, *(i for i in range(len(clips)) if i % step)]):
        if position >= len(spread) and count:
            break
        item = data[index]
        if isinstance(item, BrokenVideo):
            broken = item
            continue
        pixels = item.subclips.flatten(0, -2).double()
        sums += torch.stack([pixels.sum(0), pixels.square().sum(0)])
        count += len(pixels)
    if count == 0:
        raise VideoError(f"no usable video in the training list: {broken.reason if broken else 'it is empty'}")
    mean = sums[0] / count
    std = (sums[1] / count - mean.square()).clamp(min=1.0).sqrt()
    return mean.tolist(), std.tolist()
