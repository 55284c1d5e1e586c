"""Pools, on frames: in the plane by 2D operations, over time by combining the frames of a window."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import (
    STYLE,
    TIME,
    Frames,
    Triple,
    Value,
    frames_of,
    in_planes,
    is_stack,
    planes,
    planes_of,
    small,
    stack_of,
    stacked,
)
from clipstep.export.lowering.rules.convolution import conv3d, sum_over_taps, triple
from clipstep.export.lowering.rules.planes import averages

aten = torch.ops.aten


def windows(length: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> list[range]:
    """The positions that each output takes in, on padding too; with ``ceil_mode`` a last window may run over the end."""
    span = dilation * (kernel - 1) + 1
    room = length + 2 * padding - span
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    return [range(t * stride - padding, t * stride - padding + span, dilation) for t in range(count)]


def avg_pool3d(
    x: Value, kernel: Triple, stride: Triple = (), padding: Triple = (0,), ceil_mode: bool = False, count_padding: bool = True,
    divisor: int | None = None,
) -> Value:  # fmt: skip
    """A sum over time, then a pool of each frame or a depthwise convolution with equal weights; where windows differ in what they
    count, one of ones, and then a product."""
    kernel, padding = triple(kernel), triple(padding)
    stride, value = triple(stride or kernel), x
    axes = [windows(*axis, ceil_mode=ceil_mode) for axis in zip(value.shape[2:], kernel, stride, padding, strict=True)]
    counts = [
        [_counted(window, length, pad if count_padding else 0) for window in axis]
        for axis, length, pad in zip(axes, value.shape[2:], padding, strict=True)
    ]
    if divisor:
        counts = [[divisor] * len(axes[0]), [1], [1]]
    behind = [max(0, axis[-1].stop - length - pad) for axis, length, pad in zip(axes, value.shape[2:], padding, strict=True)]
    value = frames_of(value).map(lambda frame: F.pad(frame, (0, behind[2], 0, behind[1]))) if any(behind[1:]) else value
    even = all(len(set(count)) == 1 for count in counts)
    scale = 1.0 / math.prod(count[0] for count in counts) if even else 1.0
    summed, channels = _sum_over_time(value, axes[0]), value.shape[1]
    if even and in_planes(summed):
        return planes(averages(planes_of(summed), summed.shape[3:], axes[1], axes[2], scale), len(axes[1]), len(axes[2]))
    if even and STYLE.get().padded_pools and all(2 * pad <= length for pad, length in zip(padding[1:], kernel[1:], strict=True)):
        scale *= math.prod(kernel[1:])

        def in_plane(frames: Tensor) -> Tensor:
            pooled = F.avg_pool2d(frames, kernel[1:], stride[1:], padding[1:])
            return pooled if scale == 1 else pooled * scale

        return stacked(in_plane(stack_of(summed))) if is_stack(summed) and small(summed) else frames_of(summed).map(in_plane)
    weight = torch.full((channels, 1, 1, *kernel[1:]), scale)
    pooled = conv3d(summed, weight, None, (1, *stride[1:]), (0, *padding[1:]), (1,), channels)
    if even:
        return pooled
    plane = torch.tensor([[1.0 / (rows * columns) for columns in counts[2]] for rows in counts[1]])
    return frames_of([frame * (plane * (1.0 / count)) for frame, count in zip(frames_of(pooled).exact, counts[0], strict=True)])


def _sum_over_time(value: Value, over_time: Sequence[range]) -> Value:
    """For each window the sum of the frames in it."""
    length = value.shape[TIME]
    taps = [{t: window[tap] for t, window in enumerate(over_time) if 0 <= window[tap] < length} for tap in range(len(over_time[0]))]
    if small(value) and max(map(len, taps)) == len(over_time):
        if in_planes(value):
            return planes(sum_over_taps(planes_of(value), taps, lambda frames, _: frames, TIME), *value.shape[3:])
        return stacked(sum_over_taps(stack_of(value), taps, lambda frames, _: frames))
    items = frames_of(value).items
    under = [[frame for tap in taps if t in tap and (frame := items[tap[t]]) is not None] for t in range(len(over_time))]
    return Frames(tuple(reduce(torch.add, frames) if frames else None for frames in under))


def max_pool3d(
    x: Value, kernel: Triple, stride: Triple = (), padding: Triple = (0,), dilation: Triple = (1,), ceil_mode: bool = False
) -> Value:  # fmt: skip
    """A 2D pool of each frame, then the maximum of the frames under each temporal window."""
    kernel, padding, dilation = triple(kernel), triple(padding), triple(dilation)
    stride = triple(stride or kernel)

    def in_plane(frames: Tensor) -> Tensor:
        return F.max_pool2d(frames, kernel[1:], stride[1:], padding[1:], dilation[1:], ceil_mode)

    pooled: Value
    if in_planes(x) and not isinstance(x, Frames):
        _, channels, count, height, width = x.shape
        whole = in_plane(planes_of(x).reshape(1, channels * count, height, width))
        pooled = planes(whole.reshape(1, channels, count, -1), *whole.shape[2:])
    else:
        pooled = stacked(in_plane(stack_of(x))) if is_stack(x) and small(x) else frames_of(x).map(in_plane)
    if (kernel[0], stride[0], padding[0]) == (1, 1, 0):
        return pooled
    pooled = frames_of(pooled)
    over_time = windows(len(pooled.items), kernel[0], stride[0], padding[0], dilation[0], ceil_mode)
    return _over_time(pooled, [[t for t in window if 0 <= t < len(pooled.items)] for window in over_time], torch.maximum)


def adaptive_avg_pool3d(x: Value, sizes: Sequence[int]) -> Frames:
    """The mean of the frames of each window, each pooled in its plane."""
    pooled = frames_of(x).each(lambda frame: _adaptive(frame, sizes[1:], F.avg_pool2d, F.adaptive_avg_pool2d))
    parts = _adaptive_windows(len(pooled.items), sizes[0])
    summed = _over_time(pooled, parts, torch.add)
    return Frames(tuple(frame * (1.0 / len(part)) if len(part) > 1 else frame for frame, part in zip(summed.exact, parts, strict=True)))


def adaptive_max_pool3d(x: Value, sizes: Sequence[int]) -> tuple[Frames, None]:
    """The maximum of the frames of each window, each pooled in its plane; where the maxima lie is not given."""
    pooled = frames_of(x).each(lambda frame: _adaptive(frame, sizes[1:], F.max_pool2d, F.adaptive_max_pool2d))
    return _over_time(pooled, _adaptive_windows(len(pooled.items), sizes[0]), torch.maximum), None


def _counted(window: range, length: int, padding: int) -> int:
    return sum(-padding <= position < length + padding for position in window)


def _over_time(value: Frames, parts: Sequence[Sequence[int]], combine: Callable[[Tensor, Tensor], Tensor]) -> Frames:
    return Frames(tuple(reduce(combine, [value.exact[t] for t in part]) for part in parts))


def _adaptive_windows(length: int, count: int) -> list[range]:
    return [range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _adaptive(frame: Tensor, sizes: Sequence[int], plain: Callable[..., Tensor], adaptive: Callable[..., Tensor]) -> Tensor:
    """Where all windows are alike it is a plain pool, which more engines know."""
    if tuple(sizes) == tuple(frame.shape[2:]):
        return frame
    if any(length % size for length, size in zip(frame.shape[2:], sizes, strict=True)):
        return adaptive(frame, tuple(sizes))
    return plain(frame, [length // size for length, size in zip(frame.shape[2:], sizes, strict=True)])


RULES: dict[Any, Callable[..., Any]] = {
    aten.avg_pool3d.default: avg_pool3d,
    aten.max_pool3d.default: max_pool3d,
    aten.adaptive_avg_pool3d.default: adaptive_avg_pool3d,
    aten.adaptive_max_pool3d.default: adaptive_max_pool3d,
}
