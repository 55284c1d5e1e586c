"""Checks and measurements before a training begins: whether the network accepts the subclips, the frame rate, and the sample subclips of the run."""

import copy
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipstep.network.preprocess import RGB
from clipstep.network.states import initial_states
from clipstep.network.videos import read_subclips
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.resampler import SAME_RATE
from clipstep.runtime.video import VideoError, frame_rate
from clipstep.training.data.lists import Clip

SAMPLE_SUBCLIPS = 8


def check_trainable(network: nn.Module, frames: int, size: int, channels: int) -> None:
    """Check that the network can train on a batch of a single video, which may be left at the end of an epoch.

    Raises:
        ClipstepError: subclips are so small that a batch norm would see only one value for each channel.
    """
    probe = copy.deepcopy(network).train()
    try:
        probe(torch.zeros(1, channels, frames, size, size), *initial_states(probe))
    except ValueError as error:
        raise ClipstepError(
            "subclips too small to train on", got=f"{frames} frames of {size}x{size}: {error}", fix="use more --frames or a larger --size"
        ) from error


def sample_subclips(clips: Sequence[Clip], frames: int, size: int, channels: int = RGB, *, fps: float | None = None) -> Tensor:
    """Return the first subclips of the usable videos, one video after the other, ``(S, T, size, size, channels)`` uint8.

    Raises:
        VideoError: none of the videos can be used.
    """
    found: list[Tensor] = []
    for clip in clips:
        try:
            found.extend(read_subclips(clip.path, frames, size, channels, fps=fps, cut=clip.cut))
        except VideoError:
            continue
        if len(found) >= SAMPLE_SUBCLIPS:
            break
    if not found:
        raise VideoError("no usable video in the test list", fix="correct the list")
    return torch.stack(found[:SAMPLE_SUBCLIPS])


def frame_rates(clips: Sequence[Clip]) -> list[float]:
    """Return the frame rates of the videos that state one, in frames per second, the lowest first.

    Raises:
        VideoError: none of them does.
    """
    rates = []
    for clip in clips:
        try:
            rates.append(round(frame_rate(clip.path), 3))
        except VideoError:
            continue
    if not rates:
        raise VideoError("no training video states a frame rate", fix="re-encode the videos")
    return sorted(rates)


def median_rate(rates: Sequence[float]) -> float:
    """Return the rate that a network for videos of these rates is trained at."""
    return round(statistics.median(rates), 3)


def describe_rates(rates: Sequence[float], fps: float) -> str:
    """Say at what rate the training videos are read, and what ``rates`` they have, if these differ by more than rounding."""
    low, high = min(rates), max(rates)
    if max(high, fps) <= SAME_RATE * min(low, fps):
        return f"training videos of {fps:g} frames a second"
    return f"training videos of {low:g} to {high:g} frames a second, taken at {fps:g}: frames are left out or repeated; see --fps"
