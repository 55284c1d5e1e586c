"""Strategies for convolutions, and an average pool, of channel-major values `(1, C, T, H * W)`."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering import costs
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import TIME, Value, from_channel_major, keeps_channel_major, to_channel_major


def fits_pointwise(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it is a 1x1x1 convolution of a channel-major value."""
    return keeps_channel_major(profile, conv.x) and conv.kernel == tuple(conv.stride) == (1, 1, 1) and not any(conv.padding)


def pointwise(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute it as one 1x1 convolution of an image of (time, pixels)."""
    computed = F.conv2d(to_channel_major(conv.x), conv.weight[:, :, 0], conv.bias, groups=conv.groups)
    return from_channel_major(computed, *conv.x.shape[3:])


def fits_depthwise(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it is a depthwise 3x3x3 convolution of a channel-major value that keeps the size."""
    return keeps_channel_major(profile, conv.x) and conv.is_depthwise_3x3x3


def depthwise(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute it by a depthwise 3x3 convolution for each row of the kernel, of an image of (time, all pixels of a frame), whose rows are long.

    Each row of pixels gets a zero column at its end, so that neighbours in the long row are neighbours in the frame.
    """
    (_, channels, count, height, width), wide = conv.x.shape, conv.x.shape[4] + 1
    x = to_channel_major(conv.x)
    widened = torch.mm(x.reshape(channels * count * height, width), torch.eye(width, wide))  # Appends the column: engines pad short rows slowly.
    padded = F.pad(widened.reshape(1, channels, count, height * wide), (wide, wide))
    shifted = [padded[..., row * wide : (row + height) * wide] for row in range(3)]
    parts = [F.conv2d(rows, conv.weight[:, :, :, row], None if row else conv.bias, padding=1, groups=channels) for row, rows in enumerate(shifted)]
    total = reduce(torch.add, parts)
    computed = total.reshape(1, channels * count, height, wide)[..., :width].reshape(1, channels, count, height * width)
    return from_channel_major(computed, height, width)


def fits_banded(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it is a depthwise convolution over time with a spatial stride, of few frames of a channel-major value."""
    if not keeps_channel_major(profile, conv.x) or not conv.is_depthwise or conv.kernel[0] == 1:
        return False
    return tuple(conv.stride[1:]) != (1, 1) and conv.x.shape[TIME] * len(conv.sources) <= costs.BANDED_LIMIT


def banded(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute it as one 2D convolution with a group for each channel, from all input frames to all output frames.

    Its weights are a banded matrix over time.
    """
    (_, channels, count, height, width), frames = conv.x.shape, len(conv.sources)
    x = to_channel_major(conv.x).reshape(1, channels * count, height, width)
    weight = _banded(conv.weight, count, frames, conv.stride[0], conv.padding[0], conv.dilation[0])
    repeated = None if conv.bias is None else conv.bias.repeat_interleave(frames)
    computed = F.conv2d(x, weight, repeated, conv.stride[1:], conv.padding[1:], conv.dilation[1:], channels)
    return from_channel_major(computed.reshape(1, channels, frames, -1), *conv.spatial_size)


def _banded(weight: Tensor, count: int, frames: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the weights `(C * frames, count, kH, kW)`: zero wherever no temporal tap of an output frame reads the input frame."""
    weights: list[Tensor] = []
    for t in range(frames):
        sources = [t * stride - padding + tap * dilation for tap in range(weight.shape[2])]
        weights += [weight[:, :, sources.index(source)] if source in sources else torch.zeros_like(weight[:, :, 0]) for source in range(count)]
    return torch.cat(weights, 1).reshape(len(weight) * frames, count, *weight.shape[3:])


def sum_windows(x: Tensor, size: Sequence[int], rows: Sequence[range], columns: Sequence[range], scale: float) -> Tensor:
    """Return the sums over windows of the pixels of each frame, times `scale`, by two matrix products.

    `x` is channel-major, with frames of `size` (rows, columns); `rows` and `columns` are the ranges of rows and of columns that the windows cover.
    """
    (_, channels, count, _), (height, width) = x.shape, size
    right = _window_matrix(columns, width).t() * scale
    summed = torch.mm(x.reshape(channels * count * height, width), right).reshape(channels * count, height, len(columns))
    return torch.matmul(_window_matrix(rows, height), summed).reshape(1, channels, count, len(rows) * len(columns))


def _window_matrix(windows: Sequence[range], length: int) -> Tensor:
    """Return a matrix with a row for each window: 1 at the positions in it, 0 elsewhere."""
    return torch.tensor([[float(position in window) for position in range(length)] for window in windows])
