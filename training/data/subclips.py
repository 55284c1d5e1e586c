"""Videos as subclips: non-overlapping runs of T frames, cropped and resized, and how the network wants them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipstep.runtime.resize import Box, center_box, crop_resize
from clipstep.runtime.video import VideoError, read_frames
from clipstep.training.data.lists import Clip

CORNER_SCALES = (1.0, 0.84, 0.71)


@dataclass(frozen=True)
class Video:
    """A decoded video: ``subclips`` is ``(S, T, size, size, 3)`` uint8."""

    path: Path
    subclips: Tensor
    label: int


@dataclass(frozen=True)
class BrokenVideo:
    """A video that could not be used, and why."""

    path: Path
    reason: str


def read_subclips(path: Path, frames: int, size: int, box: Callable[[int, int], Box] = center_box) -> Tensor:
    """All whole subclips of a video, ``(S, T, size, size, 3)`` uint8; frames left over at the end are dropped.

    ``box`` chooses what is cropped, given the video's height and width.

    Raises:
        VideoError: the video cannot be read, or has fewer than ``frames`` frames.
    """
    source = iter(read_frames(path))
    first = next(source)
    square = box(*first.shape[:2])
    resized = [crop_resize(first, square, size), *(crop_resize(frame, square, size) for frame in source)]
    count = len(resized) // frames
    if count == 0:
        raise VideoError(f"{path}: too short", got=f"{len(resized)} frames", expected=f"at least {frames}", fix="use a longer video")
    return torch.from_numpy(np.stack(resized[: count * frames])).reshape(count, frames, size, size, 3)


def corner_box(height: int, width: int) -> Box:
    """A square at a random one of the four corners, its side a random one of three shares of the short side.

    Source: the paper's "crops from the four corners"; the scales are those of Wang et al., "Towards Good Practices
    for Very Deep Two-Stream ConvNets" (2015), section 3. Draws from torch's global generator.
    """
    corner, scale = int(torch.randint(4, ())), CORNER_SCALES[int(torch.randint(len(CORNER_SCALES), ()))]
    side = round(scale * min(height, width))
    return Box((height - side) * (corner // 2), (width - side) * (corner % 2), side)


class SubclipDataset(Dataset[Video | BrokenVideo]):
    """The videos of a list, decoded when asked for. A broken one comes as a :class:`BrokenVideo`, never as an error."""

    def __init__(self, clips: Sequence[Clip], frames: int, size: int, *, corners: bool) -> None:
        self.clips = clips
        self.frames = frames
        self.size = size
        self.box = corner_box if corners else center_box

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Video | BrokenVideo:
        clip = self.clips[index]
        try:
            return Video(clip.path, read_subclips(clip.path, self.frames, self.size, self.box), clip.label)
        except VideoError as error:
            return BrokenVideo(clip.path, str(error))


def normalise(subclips: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """``(..., T, H, W, 3)`` holding 0..255 to ``(..., 3, T, H, W)`` float32 with mean 0 and deviation 1 a channel.

    It works on rows of ``W * 3`` numbers, because exported code is slow on an innermost axis of three.
    """
    width = subclips.shape[-2]
    scale = torch.tensor([1.0 / d for d in deviation], device=subclips.device).repeat(width)
    shift = torch.tensor([-m / d for m, d in zip(mean, deviation, strict=True)], device=subclips.device).repeat(width)
    rows = subclips.float().flatten(-2) * scale + shift
    return rows.reshape(subclips.shape).movedim(-1, -4).contiguous()


def channel_statistics(clips: Sequence[Clip], frames: int, size: int, videos: int = 32) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in 0..255, over ``videos`` clips spread evenly over the list.

    Broken videos are passed over; if all of those are, the first usable one of the others is taken.

    Raises:
        VideoError: not one of the videos can be used.
    """
    sums = torch.zeros(2, 3, dtype=torch.float64)
    count = 0
    data = SubclipDataset(clips, frames, size, corners=False)
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
    deviation = (sums[1] / count - mean.square()).clamp(min=1.0).sqrt()
    return mean.tolist(), deviation.tolist()
