"""Normalisation: from frames of 0..255 to what a network takes."""

from collections.abc import Sequence

import torch
from torch import Tensor

RGB, FLOW = 3, 2
"""The number of input channels of a network that takes RGB frames, and of one that takes the optical flow between them."""


def normalise(subclips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise frames and move their channels to the front, as an exported artifact does it: ``(value - mean) / std``.

    Example:
        ```python
        logits = network(normalise(subclips[:1], mean=(114, 114, 114), std=(58, 58, 58)))
        ```

    Args:
        subclips: Frames ``(..., T, H, W, channels)`` holding 0..255, of any type.
        mean: What is subtracted from each channel, in 0..255.
        std: What each channel is then divided by, in 0..255.

    Returns:
        ``(..., channels, T, H, W)`` float32.
    """
    # It works on rows of W * channels numbers, because exported code is slow on an innermost axis of two or three.
    width = subclips.shape[-2]
    scale = torch.tensor([1.0 / d for d in std], device=subclips.device).repeat(width)
    shift = torch.tensor([-m / d for m, d in zip(mean, std, strict=True)], device=subclips.device).repeat(width)
    rows = subclips.float().flatten(-2) * scale + shift
    return rows.reshape(subclips.shape).movedim(-1, -4).contiguous()
