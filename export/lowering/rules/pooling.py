"""Rules for pools: each frame is pooled by 2D operations, and the frames of each temporal window are combined."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.operators import Triple, triple
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.channel_major import sum_windows
from clipstep.export.lowering.rules.convolution import conv3d
from clipstep.export.lowering.rules.direct import sum_over_taps
from clipstep.export.lowering.values import (
    TIME,
    Frames,
    Value,
    concatenate,
    fits_one_batch,
    from_batch,
    from_channel_major,
    is_batched,
    keeps_channel_major,
    to_batch,
    to_channel_major,
    to_frames,
)

aten = torch.ops.aten


def windows(length: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> list[range]:
    """Return the positions in the window of each output, those on the padding included. With `ceil_mode` the last window may exceed the input."""
    span = dilation * (kernel - 1) + 1
    room = length + 2 * padding - span
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    return [range(t * stride - padding, t * stride - padding + span, dilation) for t in range(count)]


def avg_pool3d(
    profile: EngineProfile,
    x: Value,
    kernel: Triple,
    stride: Triple = (),
    padding: Triple = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Value:
    """Compute an average pool: add the frames of each temporal window, then pool spatially.

    The spatial part is a 2D average pool, matrix products (for channel-major values), or a depthwise convolution with equal weights. If not all
    windows have the same number of elements, the weights are 1, and each sum is divided by the number of elements in its window.
    """
    kernel, padding = triple(kernel), triple(padding)
    stride, value = triple(stride or kernel), x
    axes = [windows(*axis, ceil_mode=ceil_mode) for axis in zip(value.shape[2:], kernel, stride, padding, strict=True)]
    counts = [
        [_counted(window, length, pad if count_padding else 0) for window in axis]
        for axis, length, pad in zip(axes, value.shape[2:], padding, strict=True)
    ]
    if divisor:
        counts = [[divisor] * len(axes[0]), [1], [1]]
    excess = [max(0, axis[-1].stop - length - pad) for axis, length, pad in zip(axes, value.shape[2:], padding, strict=True)]
    value = to_frames(value).map_zero_preserving(lambda frame: F.pad(frame, (0, excess[2], 0, excess[1]))) if any(excess[1:]) else value
    even = all(len(set(count)) == 1 for count in counts)
    scale = 1.0 / math.prod(count[0] for count in counts) if even else 1.0
    summed, channels = _sum_over_time(profile, value, axes[0]), value.shape[1]
    if even and keeps_channel_major(profile, summed):
        return from_channel_major(sum_windows(to_channel_major(summed), summed.shape[3:], axes[1], axes[2], scale), len(axes[1]), len(axes[2]))
    if even and profile.padded_average_pools and all(2 * pad <= length for pad, length in zip(padding[1:], kernel[1:], strict=True)):
        scale *= math.prod(kernel[1:])

        def pool_spatially(frames: Tensor) -> Tensor:
            pooled = F.avg_pool2d(frames, kernel[1:], stride[1:], padding[1:])
            return pooled if scale == 1 else pooled * scale

        return (
            from_batch(pool_spatially(to_batch(summed)))
            if is_batched(summed) and fits_one_batch(profile, summed)
            else to_frames(summed).map_zero_preserving(pool_spatially)
        )
    weight = torch.full((channels, 1, 1, *kernel[1:]), scale)
    pooled = conv3d(profile, summed, weight, None, (1, *stride[1:]), (0, *padding[1:]), (1,), channels)
    if even:
        return pooled
    reciprocal = torch.tensor([[1.0 / (rows * columns) for columns in counts[2]] for rows in counts[1]])
    return to_frames([frame * (reciprocal * (1.0 / count)) for frame, count in zip(to_frames(pooled).tensors, counts[0], strict=True)])


def avg_pool2d(
    profile: EngineProfile,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """An average pool of frames `(N, C, H, W)`. With settings that engines lack, it is computed as one of a value with N frames."""
    if not ceil_mode and divisor is None:
        pooled: Tensor = F.avg_pool2d(x, kernel, stride, padding, False, count_padding)
        return pooled
    kernel, stride, padding = ((*setting, *setting)[:2] for setting in (kernel, stride or kernel, padding))
    return to_batch(avg_pool3d(profile, from_batch(x), (1, *kernel), (1, *stride), (0, *padding), ceil_mode, count_padding, divisor))


def _sum_over_time(profile: EngineProfile, value: Value, over_time: Sequence[range]) -> Value:
    """Return the sum of the frames in each temporal window."""
    length = value.shape[TIME]
    taps = [{t: window[tap] for t, window in enumerate(over_time) if 0 <= window[tap] < length} for tap in range(len(over_time[0]))]
    if fits_one_batch(profile, value) and max(map(len, taps)) == len(over_time):
        if keeps_channel_major(profile, value):
            return from_channel_major(sum_over_taps(to_channel_major(value), taps, lambda frames, _: frames, TIME), *value.shape[3:])
        return from_batch(sum_over_taps(to_batch(value), taps, lambda frames, _: frames))
    items = to_frames(value).items
    windowed = [[frame for tap in taps if t in tap and (frame := items[tap[t]]) is not None] for t in range(len(over_time))]
    return Frames(tuple(reduce(torch.add, frames) if frames else None for frames in windowed))


def max_pool3d(
    profile: EngineProfile, x: Value, kernel: Triple, stride: Triple = (), padding: Triple = (0,), dilation: Triple = (1,), ceil_mode: bool = False
) -> Value:
    """Compute a max pool: a 2D pool of each frame, then the maximum over the frames of each temporal window."""
    kernel, padding, dilation = triple(kernel), triple(padding), triple(dilation)
    stride = triple(stride or kernel)

    def pool_spatially(frames: Tensor) -> Tensor:
        return F.max_pool2d(frames, kernel[1:], stride[1:], padding[1:], dilation[1:], ceil_mode)

    pooled: Value
    if keeps_channel_major(profile, x) and not isinstance(x, Frames):
        _, channels, count, height, width = x.shape
        whole = pool_spatially(to_channel_major(x).reshape(1, channels * count, height, width))
        pooled = from_channel_major(whole.reshape(1, channels, count, -1), *whole.shape[2:])
    else:
        pooled = (
            from_batch(pool_spatially(to_batch(x)))
            if is_batched(x) and fits_one_batch(profile, x)
            else to_frames(x).map_zero_preserving(pool_spatially)
        )
    if (kernel[0], stride[0], padding[0]) == (1, 1, 0):
        return pooled
    pooled = to_frames(pooled)
    over_time = windows(len(pooled.items), kernel[0], stride[0], padding[0], dilation[0], ceil_mode)
    return _over_time(pooled, [[t for t in window if 0 <= t < len(pooled.items)] for window in over_time], torch.maximum)


def adaptive_avg_pool3d(profile: EngineProfile, x: Value, sizes: Sequence[int]) -> Value:
    """Compute an adaptive average pool: pool each frame spatially, then take the mean over the frames of each temporal window."""
    if _pools_one_batch(profile, x, sizes):
        if tuple(sizes) == (1, 1, 1):
            return from_batch(to_batch(x).mean((0, 2, 3), keepdim=True))
        return _adaptive_batch(x, sizes, F.avg_pool2d)
    pooled = to_frames(x).map(lambda frame: adaptive(frame, sizes[1:], F.avg_pool2d))
    parts = _adaptive_windows(len(pooled.items), sizes[0])
    summed = _over_time(pooled, parts, torch.add)
    return Frames(tuple(frame * (1.0 / len(part)) if len(part) > 1 else frame for frame, part in zip(summed.tensors, parts, strict=True)))


def adaptive_max_pool3d(profile: EngineProfile, x: Value, sizes: Sequence[int]) -> tuple[Value, None]:
    """Compute an adaptive max pool: pool each frame spatially, then take the maximum over the frames of each temporal window.

    The indices of the maxima, the operator's second result, are not computed.
    """
    if _pools_one_batch(profile, x, sizes):
        return _adaptive_batch(x, sizes, F.max_pool2d), None
    pooled = to_frames(x).map(lambda frame: adaptive(frame, sizes[1:], F.max_pool2d))
    return _over_time(pooled, _adaptive_windows(len(pooled.items), sizes[0]), torch.maximum), None


def _pools_one_batch(profile: EngineProfile, x: Value, sizes: Sequence[int]) -> bool:
    return is_batched(x) and fits_one_batch(profile, x) and x.shape[TIME] % sizes[0] == 0


def _adaptive_batch(x: Value, sizes: Sequence[int], pool: Callable[..., Tensor]) -> LazyPermutation:
    """Pool a batch of frames, whose windows in time all have the same length: each frame, then the frames as rows of one picture."""
    pooled = adaptive(to_batch(x), sizes[1:], pool)
    rows = pooled.reshape(1, 1, len(pooled), -1)
    return from_batch(adaptive(rows, (sizes[0], rows.shape[3]), pool).reshape(sizes[0], *pooled.shape[1:]))


def _counted(window: range, length: int, padding: int) -> int:
    return sum(-padding <= position < length + padding for position in window)


def _over_time(value: Frames, parts: Sequence[Sequence[int]], combine: Callable[[Tensor, Tensor], Tensor]) -> Frames:
    return Frames(tuple(reduce(combine, [value.tensors[t] for t in part]) for part in parts))


def _adaptive_windows(length: int, count: int) -> list[range]:
    return [range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive(frames: Tensor, sizes: Sequence[int], pool: Callable[..., Tensor]) -> Tensor:
    """Pool frames `(N, C, H, W)` adaptively by plain pools: one if all windows have the same size, otherwise one for each row and each column."""
    if tuple(sizes) == tuple(frames.shape[2:]):
        return frames
    if not any(length % size for length, size in zip(frames.shape[2:], sizes, strict=True)):
        return pool(frames, [length // size for length, size in zip(frames.shape[2:], sizes, strict=True)])
    for axis, size in enumerate(sizes, 2):
        windows = _adaptive_windows(frames.shape[axis], size)
        parts = [aten.slice.Tensor(frames, axis, window.start, window.stop) for window in windows]
        frames = concatenate([pool(part, (part.shape[2], 1) if axis == 2 else (1, part.shape[3])) for part in parts], axis)
    return frames


RULES: dict[Any, Callable[..., Any]] = {
    aten.avg_pool3d.default: avg_pool3d,
    aten.max_pool3d.default: max_pool3d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.adaptive_avg_pool3d.default: adaptive_avg_pool3d,
    aten._adaptive_avg_pool3d.default: adaptive_avg_pool3d,
    aten.adaptive_max_pool3d.default: adaptive_max_pool3d,
    aten._adaptive_avg_pool2d.default: lambda profile, x, sizes: adaptive(x, sizes, F.avg_pool2d),
    aten.adaptive_max_pool2d.default: lambda profile, x, sizes: (adaptive(x, sizes, F.max_pool2d), None),
}
