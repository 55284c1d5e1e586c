"""What is found out about the videos before training begins."""

import copy
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipstep.network.preprocess import RGB
from clipstep.network.states import initial_states
from clipstep.network.videos import read_subclips
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError, frame_rate
from clipstep.training.data.lists import Clip

SAMPLE_SUBCLIPS = 8


def check_trainable(network: nn.Module, frames: int, size: int, channels: int) -> None:
    """One video may be left in a batch, and batch norms need more than one value a channel.

    Raises:
        ClipstepError: they would not have that.
    """
    probe = copy.deepcopy(network).train()
    try:
        probe(torch.zeros(1, channels, frames, size, size), *initial_states(probe))
    except ValueError as error:
        raise ClipstepError(
            "subclips too small to train on", got=f"{frames} frames of {size}x{size}: {error}", fix="use more --frames or a larger --size"
        ) from error


def sample_subclips(clips: Sequence[Clip], frames: int, size: int, channels: int = RGB) -> Tensor:
    """The first subclips of the usable videos, one video after the other: ``(S, T, size, size, channels)`` uint8.

    Raises:
        VideoError: not one of the videos can be used.
    """
    found: list[Tensor] = []
    for clip in clips:
        try:
            found.extend(read_subclips(clip.path, frames, size, channels))
        except VideoError:
            continue
        if len(found) >= SAMPLE_SUBCLIPS:
            break
    if not found:
        raise VideoError("no usable video in the test list", fix="correct the list")
    return torch.stack(found[:SAMPLE_SUBCLIPS])


def median_rate(clips: Sequence[Clip]) -> float:
    """The median of the videos' frames per second.

    Raises:
        VideoError: not one of the videos states its rate.
    """
    rates = []
    for clip in clips:
        try:
            rates.append(frame_rate(clip.path))
        except VideoError:
            continue
    if not rates:
        raise VideoError("no training video states a frame rate", fix="re-encode the videos")
    return round(statistics.median(rates), 3)
