"""Normalisation: from frames of 0..255 to what a network takes."""

from collections.abc import Sequence

import torch
from torch import Tensor

RGB, FLOW = 3, 2
"""The number of input channels of a network that takes RGB frames, and of one that takes the optical flow between them."""


def normalise(subclips: Tensor, mean: Sequence[float], std: Sequence[float], layout: str = "THWC") -> Tensor:
    """Normalise frames and move their channels to the front, as an exported artifact does it: ``(value - mean) / std``.

    Example:
        ```python
        logits = network(normalise(subclips[:1], mean=(114, 114, 114), std=(58, 58, 58)))
        ```

    Args:
        subclips: Frames ``(..., T, H, W, channels)``, of any type: for a video they hold 0..255.
        mean: What is subtracted from each channel, on the scale of the frames.
        std: What each channel is then divided by, on the same scale.
        layout: The axes of a subclip: ``TVC`` for joints ``(..., T, V, channels)``, ``TMVC`` for those of persons ``(..., T, M, V, channels)``.

    Returns:
        ``(..., channels, T, H, W)`` float32; of joints ``(..., channels, T, V)`` or ``(..., channels, T, V, M)``.
    """
    # It works on rows of W * channels numbers, because exported code is slow on an innermost axis of two or three.
    width = subclips.shape[-2]
    scale = torch.tensor([1.0 / d for d in std], device=subclips.device).repeat(width)
    shift = torch.tensor([-m / d for m, d in zip(mean, std, strict=True)], device=subclips.device).repeat(width)
    rows = subclips.float().flatten(-2) * scale + shift
    front = rows.reshape(subclips.shape).movedim(-1, -len(layout))
    return (front.transpose(-1, -2) if layout == "TMVC" else front).contiguous()
