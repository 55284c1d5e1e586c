"""Strategies that write a convolution as im2col and matrix products (GEMM).

A product is `(O, K) @ (K, pixels)`, with K the number of input channels times the number of kernel taps.
"""

import math
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering import costs
from clipstep.export.lowering.operators import Triple
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import Frames, concatenate, to_frames


def fits(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether direct kernels are slow for the convolution, and its im2col matrix is not too large."""
    if not profile.gemm or conv.groups != 1:
        return False
    elements = math.prod(conv.weight.shape[1:]) * math.prod(conv.spatial_size)
    slow = is_ragged(len(conv.weight)) and len(conv.taps) > 1 if conv.is_temporal else conv.weight.shape[1] <= costs.FEW_CHANNELS
    return slow and all(conv.sources) and elements <= costs.IM2COL_LIMIT


def is_ragged(channels: int) -> bool:
    """Whether this number of output channels leaves much of a kernel's tiles unused."""
    return channels / (channels + -channels % costs.CHANNEL_TILE) <= costs.TILE_USE


def one_product(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute each output frame by one product over all temporal taps.

    The bias is appended to the weights as one more column, which multiplies a row of ones appended to the im2col matrices.
    """
    columns, matrices, bias = _operands(profile, conv)
    ones = [torch.ones(1, math.prod(conv.spatial_size)) for _ in bias]
    items = [
        torch.mm(concatenate([*(matrices[tap] for tap, _ in row), *bias], 1), concatenate([*(columns[source] for _, source in row), *ones], 0))
        for row in conv.sources
    ]
    return _frames(conv, items)


def product_per_tap(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute each output frame as the sum of a product for each temporal tap, and the bias: nothing is concatenated."""
    columns, matrices, bias = _operands(profile, conv)
    items = [reduce(torch.add, [*(torch.mm(matrices[tap], columns[source]) for tap, source in row), *bias]) for row in conv.sources]
    return _frames(conv, items)


def _operands(profile: EngineProfile, conv: Convolution) -> tuple[dict[int, Tensor], list[Tensor], list[Tensor]]:
    """Return the im2col matrix of each input frame that is read, the weight matrix of each temporal tap, and the bias `(O, 1)` if there is one."""
    frames = to_frames(conv.x).tensors
    columns = {source: im2col(profile, frames[source], conv) for source in {source for row in conv.sources for _, source in row}}
    matrices = [conv.weight[:, :, tap].permute(0, 2, 3, 1).reshape(len(conv.weight), -1) for tap in range(conv.kernel[0])]
    return columns, matrices, [] if conv.bias is None else [conv.bias[:, None]]


def _frames(conv: Convolution, items: list[Tensor]) -> Frames:
    return Frames(tuple(item.reshape(1, len(conv.weight), *conv.spatial_size) for item in items))


def im2col(profile: EngineProfile, frame: Tensor, conv: Convolution) -> Tensor:
    """Return the im2col matrix of a frame `(1, C, H, W)` for the 2D kernel of one temporal tap: `(kH * kW * C, pixels)`.

    Its rows are ordered by row of the kernel, column of the kernel, channel. With a stride s the frame is first split into
    s * s phases, each with every s-th row and column, so that every row of the matrix is a slice of a phase.
    """
    kernel, stride, padding, dilation = conv.kernel[1:], conv.stride[1:], conv.padding[1:], conv.dilation[1:]
    (channels, height, width), (rows, columns) = frame.shape[1:], conv.spatial_size
    if tuple(kernel) == tuple(stride) == (1, 1) and (rows, columns) == (height, width):
        return frame.reshape(channels, rows * columns)
    down, right = stride
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    deep, wide = (
        max(n + span // s, -(-(full + p) // s))
        for n, span, s, full, p in zip(conv.spatial_size, spans, stride, frame.shape[2:], padding, strict=True)
    )
    padded = F.pad(frame, (padding[1], wide * right - width - padding[1], padding[0], deep * down - height - padding[0]))
    phases = _phases(profile, padded, down, right, deep, wide)
    parts = _slices(kernel, dilation, down, right, channels)
    cut = [phases[first:last, y : y + rows, x : x + columns] for first, last, y, x in parts]
    if profile.free_permutations:  # The reshape is then the only user of its slice.
        cut = [part.reshape(-1, rows * columns) for part in cut]
    return concatenate(cut, 0).reshape(-1, rows * columns)


def _phases(profile: EngineProfile, padded: Tensor, down: int, right: int, deep: int, wide: int) -> Tensor:
    """Split a frame by its strides (space-to-depth) into phases, `(down * right * C, deep, wide)`.

    Entry `[(i, j, c), y, x]` is pixel `(y * down + i, x * right + j)` of channel c.
    """
    if down == right == 1:
        return padded[0]
    if down == right and not profile.free_permutations:  # Most engines have an operation for it, which is faster than a transposition.
        return F.pixel_unshuffle(padded.permute(1, 0, 2, 3), down).permute(1, 0, 2, 3).reshape(-1, deep, wide)
    lines = padded.permute(0, 2, 3, 1).reshape(deep, down, wide, right * padded.shape[1])
    return lines.permute(1, 3, 0, 2).contiguous().reshape(-1, deep, wide)


def _slices(kernel: Triple, dilation: Triple, down: int, right: int, channels: int) -> list[list[int]]:
    """Return the slices of the phases that the taps of a 2D kernel read, in order: (first, last, row, column).

    A slice is `phases[first:last, row:, column:]`. Neighbouring slices are joined.
    """
    places = [(*divmod(i * dilation[0], down), *divmod(j * dilation[1], right)) for i in range(kernel[0]) for j in range(kernel[1])]
    parts: list[list[int]] = []
    for y, row, x, column in places:
        first = (row * right + column) * channels
        if parts and parts[-1][1:] == [first, y, x]:
            parts[-1][1] += channels
        else:
            parts.append([first, first + channels, y, x])
    return parts
