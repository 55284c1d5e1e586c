"""Strategies that write a convolution as im2col and matrix products (GEMM).

A product is `(O, K) @ (K, pixels)`, with K the number of input channels times the number of kernel taps.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering import costs
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import Frames, Value, concatenate, fits_one_batch, from_batch, to_batch, to_frames

aten = torch.ops.aten


def fits(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether direct kernels are slow for the convolution, and its im2col matrix is not too large."""
    if not profile.gemm or conv.groups != 1:
        return False
    elements = math.prod(conv.weight.shape[1:]) * math.prod(conv.spatial_size)
    slow = is_ragged(len(conv.weight)) and len(conv.taps) > 1 if conv.is_temporal else conv.weight.shape[1] <= costs.FEW_CHANNELS
    return slow and all(conv.sources) and elements <= costs.IM2COL_LIMIT


def fits_batch(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it fits, is larger than 1x1 spatially, and the im2col matrices of all output frames together are small; in engines with free
    permutations it was not tried."""
    if profile.free_permutations or conv.is_temporal or not fits(profile, conv) or not fits_one_batch(profile, conv.x):
        return False
    elements = math.prod(conv.weight.shape[1:]) * math.prod(conv.spatial_size) * len(conv.sources)
    return elements <= costs.BATCHED_IM2COL_LIMIT and conv.stride[1] == conv.stride[2]


def is_ragged(channels: int) -> bool:
    """Whether this number of output channels leaves much of a kernel's tiles unused."""
    return channels / (channels + -channels % costs.CHANNEL_TILE) <= costs.TILE_USE


def one_product(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute each output frame by one product over all temporal taps, or by one linear layer if the profile says so.

    In a product the bias is appended to the weights as one more column, which multiplies a row of ones appended to the im2col matrices.
    """
    columns, matrices, bias = _operands(profile, conv)
    if profile.linear_layers:
        return _frames(conv, [_linear_layer(row, columns, matrices, conv.bias) for row in conv.sources])
    ones = [torch.ones(1, math.prod(conv.spatial_size)) for _ in bias]
    items = [
        torch.mm(concatenate([*(matrices[tap] for tap, _ in row), *bias], 1), concatenate([*(columns[source] for _, source in row), *ones], 0))
        for row in conv.sources
    ]
    return _frames(conv, items)


def _linear_layer(row: Sequence[tuple[int, int]], columns: dict[int, Tensor], matrices: list[Tensor], bias: Tensor | None) -> Tensor:
    """Return the product `(O, pixels)` of the weights and the im2col matrices of pairs of a tap and an input frame, and the bias added."""
    rows = concatenate([columns[source] for _, source in row], 0).permute(1, 0)
    return F.linear(rows, concatenate([matrices[tap] for tap, _ in row], 1), bias).permute(1, 0)


def product_per_tap(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute each output frame as the sum of a product for each temporal tap, and the bias: nothing is concatenated."""
    columns, matrices, bias = _operands(profile, conv)
    items = [reduce(torch.add, [*(torch.mm(matrices[tap], columns[source]) for tap, source in row), *bias]) for row in conv.sources]
    return _frames(conv, items)


def batch_of_products(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute all output frames by one batch of products over all temporal taps."""
    columns = im2col_of_batch(to_batch(conv.x), conv)
    matrices = [conv.weight[:, :, tap].reshape(len(conv.weight), -1) for tap in range(conv.kernel[0])]
    made = torch.matmul(concatenate(matrices, 1), concatenate(_read_by_taps(columns, conv), 1))
    if conv.bias is not None:
        made = made + conv.bias[:, None]
    return from_batch(made.reshape(-1, len(conv.weight), *conv.spatial_size))


def _operands(profile: EngineProfile, conv: Convolution) -> tuple[dict[int, Tensor], list[Tensor], list[Tensor]]:
    """Return the im2col matrix of each input frame that is read, the weight matrix of each temporal tap, and the bias `(O, 1)` if there is one."""
    frames = to_frames(conv.x).tensors
    columns = {source: im2col(profile, frames[source], conv) for source in {source for row in conv.sources for _, source in row}}
    matrices = [_matrix(conv, tap) for tap in range(conv.kernel[0])]
    return columns, matrices, [] if conv.bias is None else [conv.bias[:, None]]


def _matrix(conv: Convolution, tap: int) -> Tensor:
    """Return the weight of a temporal tap as a matrix `(O, kH * kW * C)`, whose columns are ordered as the rows of an im2col matrix."""
    kernel: Tensor = conv.weight[:, :, tap]
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)


def _frames(conv: Convolution, items: list[Tensor]) -> Frames:
    return Frames(tuple(item.reshape(1, len(conv.weight), *conv.spatial_size) for item in items))


def im2col(profile: EngineProfile, frame: Tensor, conv: Convolution) -> Tensor:
    """Return the im2col matrix of a frame `(1, C, H, W)` for the 2D kernel of one temporal tap: `(kH * kW * C, pixels)`.

    Its rows are ordered by row of the kernel, column of the kernel, channel. With a stride s the frame is first split into
    s * s phases, each with every s-th row and column, so that every row of the matrix is a slice of a phase.
    """
    (channels, height, width), (rows, columns) = frame.shape[1:], conv.spatial_size
    if conv.kernel[1:] == tuple(conv.stride[1:]) == (1, 1) and (rows, columns) == (height, width):
        return frame.reshape(channels, rows * columns)
    down, right = conv.stride[1:]
    padded, deep, wide = _padded(frame, conv)
    phases = _phases(profile, padded, down, right, deep, wide)
    parts = _slices(conv, channels)
    cut = [phases[first:last, y : y + rows, x : x + columns] for first, last, y, x in parts]
    if profile.free_permutations:  # The reshape is then the only user of its slice.
        cut = [part.reshape(-1, rows * columns) for part in cut]
    return concatenate(cut, 0).reshape(-1, rows * columns)


def _read_by_taps(columns: Tensor, conv: Convolution) -> list[Tensor]:
    """Return for each temporal tap the im2col matrices, of `columns` `(T, K, pixels)`, that it reads for all output frames; zeros on the padding."""
    stride, padding, dilation = conv.stride[0], conv.padding[0], conv.dilation[0]
    if conv.kernel[0] == stride == 1 and not padding:
        return [columns]
    padded = F.pad(columns, (0, 0, 0, 0, padding, padding))
    span = (len(conv.sources) - 1) * stride + 1
    return [aten.slice.Tensor(padded, 0, tap * dilation, tap * dilation + span, stride) for tap in range(conv.kernel[0])]


def im2col_of_batch(frames: Tensor, conv: Convolution) -> Tensor:
    """Return the im2col matrices of frames `(T, C, H, W)`: `(T, C * kH * kW, pixels)`, rows ordered by channel, row and column of the kernel.

    Each channel of a frame is a frame of its own, so that no phases have to be brought into another order.
    """
    (count, channels), (rows, columns), down = frames.shape[:2], conv.spatial_size, conv.stride[1]
    padded, deep, wide = _padded(frames, conv)
    planes = padded.reshape(count * channels, 1, deep * down, wide * down)
    phases = F.pixel_unshuffle(planes, down) if down > 1 else planes
    cut = [phases[:, first:last, y : y + rows, x : x + columns] for first, last, y, x in _slices(conv, 1)]
    return concatenate(cut, 1).reshape(count, -1, rows * columns)


def _padded(frames: Tensor, conv: Convolution) -> tuple[Tensor, int, int]:
    """Return frames `(T, C, H, W)` padded to whole strides, of which each tap of a kernel reads a part, and how many strides of rows and columns."""
    stride, padding, (down, right) = conv.stride[1:], conv.padding[1:], conv.stride[1:]
    spans = [d * (k - 1) for d, k in zip(conv.dilation[1:], conv.kernel[1:], strict=True)]
    deep, wide = (
        max(n + span // s, -(-(full + p) // s))
        for n, span, s, full, p in zip(conv.spatial_size, spans, stride, frames.shape[2:], padding, strict=True)
    )
    height, width = frames.shape[2:]
    padded = F.pad(frames, (padding[1], wide * right - width - padding[1], padding[0], deep * down - height - padding[0]))
    return padded, deep, wide


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


def _slices(conv: Convolution, channels: int) -> list[list[int]]:
    """Return the slices of the phases that the taps of a 2D kernel read, in order: (first, last, row, column).

    A slice is `phases[first:last, row:, column:]`. Neighbouring slices are joined.
    """
    kernel, (down, right), dilation = conv.kernel[1:], conv.stride[1:], conv.dilation[1:]
    places = [(*divmod(i * dilation[0], down), *divmod(j * dilation[1], right)) for i in range(kernel[0]) for j in range(kernel[1])]
    parts: list[list[int]] = []
    for y, row, x, column in places:
        first = (row * right + column) * channels
        if parts and parts[-1][1:] == [first, y, x]:
            parts[-1][1] += channels
        else:
            parts.append([first, first + channels, y, x])
    return parts
