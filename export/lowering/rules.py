"""How each operation on rank-5 values is done on rank-4 ones: one small pure function an operation.

A rule is called as the original operation was, with a :class:`Volume` wherever that had a rank-5 tensor. Frames are
stacked on the batch axis, ``(T, C, H, W)``; an operation that mixes frames is done on shifted slices of the stack.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.volume import FRAMES_FIRST, Volume, concatenate, gather_columns, gather_frames, pad_frames

aten = torch.ops.aten
Triple = Sequence[int]


class NoRule(Exception):
    """An operation, or a setting of one, that no rule covers."""


def tap_sources(length: int, taps: int, stride: int, padding: int, dilation: int) -> list[list[int | None]]:
    """For each temporal tap of a kernel the input frame under it at each output frame, None on the zero padding."""
    count = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    sources = [[t * stride - padding + tap * dilation for t in range(count)] for tap in range(taps)]
    return [[source if 0 <= source < length else None for source in row] for row in sources]


def conv3d(
    x: Volume, weight: Tensor, bias: Tensor | None = None, stride: Triple = (1,), padding: Triple = (0,), dilation: Triple = (1,), groups: int = 1
) -> Volume:  # fmt: skip
    """2D convolutions: all temporal taps at once as more input channels or, if it is grouped, one a tap, summed."""
    stride, padding, dilation = _triple(stride), _triple(padding), _triple(dilation)
    plane: dict[str, Any] = {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}
    if groups > 1:
        rows = tap_sources(x.shape[2], weight.shape[2], stride[0], padding[0], dilation[0])
        return _sum_of_taps(x, rows, weight, bias, plane)
    block = _block(x.shape[2], weight, stride[0], padding[0], dilation[0])
    # Each of the block's output frames has a kernel of its own, shifted by one frame.
    shifted = [F.pad(weight, (0, 0, 0, 0, frame, block - 1 - frame)) for frame in range(block)]
    kernel = concatenate(shifted, 0)
    rows = tap_sources(x.shape[2], kernel.shape[2], stride[0] * block, padding[0], dilation[0])
    reaching = [i for i, row in enumerate(rows) if any(source is not None for source in row)]
    columns = gather_columns(x, [rows[i] for i in reaching])
    taps = concatenate([kernel[:, :, i] for i in reaching], 1)
    return Volume(F.conv2d(columns, taps, None if bias is None else bias.repeat(block), **plane), block=block)


def _block(length: int, weight: Tensor, stride: int, padding: int, dilation: int) -> int:
    """How many consecutive output frames are best computed as channels of one.

    Kernels compute 8 channels at a time, so that 24 channels cost little more than 12; two frames at once read four
    input frames instead of twice three. An eighth more arithmetic is allowed for that.
    """
    channels, taps = weight.shape[0], weight.shape[2]
    count = length + 2 * padding - taps + 1
    if (stride, dilation) != (1, 1) or count % 2:
        return 1
    one, two = (-(-frames * channels // 8) * (taps + frames - 1) / frames for frames in (1, 2))
    return 2 if two <= one * 9 / 8 else 1


def _sum_of_taps(x: Volume, rows: list[list[int | None]], weight: Tensor, bias: Tensor | None, plane: dict[str, Any]) -> Volume:
    """The tap that reaches the most frames goes first, over all output frames, because it brings the bias."""
    taps = [(row, weight[:, :, i]) for i, row in enumerate(rows) if any(source is not None for source in row)]
    taps.sort(key=lambda item: item[0].count(None))
    (row, tap), *others = taps
    total = F.conv2d(gather_frames(x, row), tap, bias, **plane)
    for row, tap in others:
        reached = [t for t, source in enumerate(row) if source is not None]
        part = F.conv2d(gather_frames(x, [row[t] for t in reached]), tap, None, **plane)
        total = total + pad_frames(part, reached[0], len(row) - 1 - reached[-1])
    return Volume(total)


def avg_pool3d(
    x: Volume, kernel: Triple, stride: Triple = (), padding: Triple = (0,), ceil_mode: bool = False, count_padding: bool = True,
    divisor: int | None = None,
) -> Volume:  # fmt: skip
    """A depthwise convolution with equal weights."""
    kernel, padding = _triple(kernel), _triple(padding)
    if ceil_mode or (any(padding) and not count_padding):
        raise NoRule("ceil_mode, or padding that is not counted")
    channels = x.shape[1]
    weight = torch.full((channels, 1, *kernel), 1.0 / (divisor or math.prod(kernel)))
    return conv3d(x, weight, None, _triple(stride or kernel), padding, (1,), channels)


def max_pool3d(
    x: Volume, kernel: Triple, stride: Triple = (), padding: Triple = (0,), dilation: Triple = (1,), ceil_mode: bool = False
) -> Volume:  # fmt: skip
    """A 2D pool of each frame."""
    kernel, padding, dilation = _triple(kernel), _triple(padding), _triple(dilation)
    stride = _triple(stride or kernel)
    if (kernel[0], stride[0], padding[0]) != (1, 1, 0):
        raise NoRule("a max pool over time")
    if x.axes != FRAMES_FIRST:
        x = Volume(x.stacked)
    return x.map(lambda frames: F.max_pool2d(frames, kernel[1:], stride[1:], padding[1:], dilation[1:], ceil_mode))


def relu(x: Volume) -> Volume:
    return x.map(F.relu)


def add(x: Volume, y: Volume, *, alpha: float = 1) -> Volume:
    if not isinstance(x, Volume) or not isinstance(y, Volume) or x.shape != y.shape or alpha != 1:
        raise NoRule("an addition of values of different shapes")
    return Volume(x.stacked + y.stacked)


def pad(x: Volume, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Volume:
    """``amounts`` as torch gives them: last axis first, a pair an axis."""
    if mode != "constant" or (len(amounts) > 6 and any(amounts[6:])):
        raise NoRule(f"mode {mode!r}, or padding of the channels")
    amounts = [*amounts, *[0] * (6 - len(amounts))]
    return Volume(F.pad(x.stacked, (*amounts[:4], 0, 0, *amounts[4:6]), value=value))


def cat(values: Sequence[Volume], dim: int = 0) -> Volume:
    axis = {1: 1, 2: 0, 3: 2, 4: 3}.get(dim % 5)
    if axis is None or not all(isinstance(value, Volume) for value in values):
        raise NoRule("a concatenation along the batch")
    *before, last = values
    if axis == 0 and last.block > 1 and last.lead is None:
        return replace(last, lead=concatenate([value.stacked for value in before], 0))
    return Volume(concatenate([value.stacked for value in values], axis))


def slice_tensor(x: Volume, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Volume:
    """Steps are taken along time only: frames are whole copies there."""
    length = x.shape[dim]
    kept = range(length)[start:end:step]
    if len(kept) == length:
        return x
    if dim % 5 == 2:
        return Volume(gather_frames(x, list(kept)))
    if dim % 5 == 0 or step != 1:
        raise NoRule("a slice with a step outside time, or an empty one")
    x = x.plain
    return Volume(x.data.narrow(x.axes.index(dim % 5), kept.start, len(kept)), x.axes)


def mean(x: Volume, dims: Sequence[int], keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """A 2D global average pool, then the mean of the frames as a sum of slices."""
    if sorted(dim % 5 for dim in dims) != [2, 3, 4] or keepdim or dtype is not None:
        raise NoRule("a mean over other axes than (2, 3, 4), or one that keeps them")
    frames = x.stacked.mean(dim=(2, 3), keepdim=True)
    total = frames[:1]
    for t in range(1, len(frames)):
        total = total + frames[t : t + 1]
    return (total if len(frames) == 1 else total * (1.0 / len(frames))).flatten(1)


def reshape(x: Volume | Tensor, shape: Sequence[int]) -> Volume | Tensor:
    flat = x.original if isinstance(x, Volume) else x
    shape = [flat.numel() // -math.prod(shape) if size == -1 else size for size in shape]
    if len(shape) != 5:
        return flat.reshape(shape)
    if shape[0] != 1:
        raise NoRule(f"a reshape to rank 5 with a batch of {shape[0]}")
    return Volume(flat.reshape(shape[1:]), (1, 2, 3, 4))


def flatten(x: Volume, start: int = 0, end: int = -1) -> Volume | Tensor:
    start, end = start % 5, end % 5
    return reshape(x, [*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]])


def unflatten(x: Volume | Tensor, dim: int, sizes: Sequence[int]) -> Volume | Tensor:
    dim %= len(x.shape)
    return reshape(x, [*x.shape[:dim], *sizes, *x.shape[dim + 1 :]])


def permute(x: Volume, dims: Sequence[int]) -> Volume:
    if dims[0] != 0:
        raise NoRule("a permutation that moves the batch")
    x = x.plain
    return Volume(x.data, tuple(list(dims).index(axis) for axis in x.axes))


def movedim(x: Volume, source: int, destination: int) -> Volume:
    order = [axis for axis in range(5) if axis != source % 5]
    order.insert(destination % 5, source % 5)
    return permute(x, order)


def unsqueeze(x: Tensor, dim: int) -> Volume | Tensor:
    if x.ndim != 4:
        return x.unsqueeze(dim)
    if dim % 5 != 0:
        raise NoRule("a fifth axis that is not the batch")
    return Volume(x, (1, 2, 3, 4))


def same(x: Volume, *_: Any, **__: Any) -> Volume:
    """Operations that change nothing in a graph without side effects."""
    return x


def to(x: Volume, dtype: torch.dtype, *_: Any, **__: Any) -> Volume:
    return x.map(lambda data: data.to(dtype))


RULES: dict[Any, Callable[..., Any]] = {
    aten.conv3d.default: conv3d,
    aten.avg_pool3d.default: avg_pool3d,
    aten.max_pool3d.default: max_pool3d,
    aten.relu.default: relu,
    aten.add.Tensor: add,
    aten.pad.default: pad,
    aten.cat.default: cat,
    aten.slice.Tensor: slice_tensor,
    aten.mean.dim: mean,
    aten.reshape.default: reshape,
    aten.view.default: reshape,
    aten.flatten.using_ints: flatten,
    aten.unflatten.int: unflatten,
    aten.permute.default: permute,
    aten.movedim.int: movedim,
    aten.unsqueeze.default: unsqueeze,
    aten.to.dtype: to,
    aten.contiguous.default: same,
    aten.clone.default: same,
    aten.alias.default: same,
    aten.detach_.default: same,
    aten.lift_fresh_copy.default: same,
}


def _triple(values: int | Triple) -> tuple[int, ...]:
    """torch stores a setting that is the same on all axes as one number."""
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * 3 if len(values) == 1 else values
