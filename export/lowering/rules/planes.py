"""Convolutions and average pools of a whole value in its own order, ``(1, C, T, H * W)``."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import Triple, Value, planes, planes_of
from clipstep.export.lowering.view import View

BANDED_LIMIT = 2**7
"""At most so many pairs of an input and an output frame for one convolution of all of them."""


def whole_conv3d(
    x: Value, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple, dilation: Triple, groups: int, size: Triple
) -> View | None:  # fmt: skip
    """The convolution, whose result has ``size`` (T, H, W), or nothing where it gains nothing this way."""
    _, channels, count, height, width = x.shape
    kernel = tuple(weight.shape[2:])
    if kernel == tuple(stride) == (1, 1, 1) and not any(padding):
        return planes(F.conv2d(planes_of(x), weight[:, :, 0], bias, groups=groups), height, width)
    if not channels == groups == len(weight) or kernel[0] == 1:
        return None
    if is_depthwise_of_three(x, weight, stride, padding, dilation, groups):
        return planes(_depthwise(planes_of(x), weight, bias, height, width), height, width)
    if stride[1:] == (1, 1) or count * size[0] > BANDED_LIMIT:
        return None
    frames = planes_of(x).reshape(1, channels * count, height, width)
    banded = _banded(weight, count, size[0], stride[0], padding[0], dilation[0])
    repeated = None if bias is None else bias.repeat_interleave(size[0])
    computed = F.conv2d(frames, banded, repeated, stride[1:], padding[1:], dilation[1:], channels)
    return planes(computed.reshape(1, channels, size[0], -1), *size[1:])


def is_depthwise_of_three(x: Value, weight: Tensor, stride: Triple, padding: Triple, dilation: Triple, groups: int) -> bool:
    """Whether it is a depthwise convolution of three by three by three that keeps the size."""
    fits = (*weight.shape[2:], *stride, *padding, *dilation) == (3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    return fits and x.shape[1] == groups == len(weight)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, height: int, width: int) -> Tensor:
    """Of three by three by three: for each row of the kernel one over an image of time and all pixels, which has long rows.

    A column of zeros stands behind each row of pixels, so that neighbours in the image are neighbours in the frame.
    """
    _, channels, count, _ = x.shape
    wide = width + 1
    widened = torch.mm(x.reshape(channels * count * height, width), torch.eye(width, wide))  # Engines pad short rows slowly.
    padded = F.pad(widened.reshape(1, channels, count, height * wide), (wide, wide))
    under = [padded[..., row * wide : (row + height) * wide] for row in range(3)]
    parts = [F.conv2d(rows, weight[:, :, :, row], None if row else bias, padding=1, groups=channels) for row, rows in enumerate(under)]
    total = reduce(torch.add, parts)
    return total.reshape(1, channels * count, height, wide)[..., :width].reshape(1, channels, count, height * width)


def _banded(weight: Tensor, count: int, frames: int, stride: int, padding: int, dilation: int) -> Tensor:
    """The kernels of a depthwise convolution of ``count`` frames as those of one of 2D, ``(C * frames, count, kH, kW)``."""
    banded: list[Tensor] = []
    for t in range(frames):
        sources = [t * stride - padding + tap * dilation for tap in range(weight.shape[2])]
        banded += [weight[:, :, sources.index(source)] if source in sources else torch.zeros_like(weight[:, :, 0]) for source in range(count)]
    return torch.cat(banded, 1).reshape(len(weight) * frames, count, *weight.shape[3:])


def averages(x: Tensor, size: Sequence[int], rows: Sequence[range], columns: Sequence[range], scale: float) -> Tensor:
    """Sums over windows of pixels, of ``size`` (H, W), times ``scale``: two products of matrices."""
    (_, channels, count, _), (height, width) = x.shape, size
    right = _windows(columns, width).t() * scale
    summed = torch.mm(x.reshape(channels * count * height, width), right).reshape(channels * count, height, len(columns))
    return torch.matmul(_windows(rows, height), summed).reshape(1, channels, count, len(rows) * len(columns))


def _windows(windows: Sequence[range], length: int) -> Tensor:
    """Row by row the equal weights of the positions in a window."""
    return torch.tensor([[float(position in window) for position in range(length)] for window in windows])
