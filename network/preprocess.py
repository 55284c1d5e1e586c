"""The numbers of frames as a network takes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

RGB, FLOW = 3, 2
"""Channels of what a network sees: RGB frames, or the optical flow between them."""


def normalise(subclips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(..., T, H, W, channels)`` holding 0..255 to ``(..., channels, T, H, W)`` float32 with mean 0 and standard deviation 1 a channel.

    It works on rows of ``W * channels`` numbers, because exported code is slow on an innermost axis of two or three.
    """
    width = subclips.shape[-2]
    scale = torch.tensor([1.0 / d for d in std], device=subclips.device).repeat(width)
    shift = torch.tensor([-m / d for m, d in zip(mean, std, strict=True)], device=subclips.device).repeat(width)
    rows = subclips.float().flatten(-2) * scale + shift
    return rows.reshape(subclips.shape).movedim(-1, -4).contiguous()
