"""How each operation on rank-5 values is done on rank-4 ones: one small pure function an operation.

A rule is called as the original operation was, with a :class:`Volume` or :class:`Frames` wherever that had a rank-5
tensor. What computes works on frames; what moves axes works on the volume.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.volume import Frames, Volume, concatenate, pad_channels

aten = torch.ops.aten
Triple = Sequence[int]
Value = Volume | Frames
CHANNEL_MULTIPLE = 8


class NoRule(Exception):
    """An operation, or a setting of one, that no rule covers."""


def tap_sources(length: int, taps: int, stride: int, padding: int, dilation: int) -> list[list[tuple[int, int]]]:
    """For each output frame the pairs (temporal tap, input frame under it), without those on the zero padding."""
    count = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    sources = [[(tap, t * stride - padding + tap * dilation) for tap in range(taps)] for t in range(count)]
    return [[(tap, source) for tap, source in row if 0 <= source < length] for row in sources]


def conv3d(
    x: Value, weight: Tensor, bias: Tensor | None = None, stride: Triple = (1,), padding: Triple = (0,), dilation: Triple = (1,), groups: int = 1
) -> Frames:  # fmt: skip
    """For each output frame a 2D convolution of all its taps as input channels or, if it is grouped, one a tap, summed."""
    stride, padding, dilation = _triple(stride), _triple(padding), _triple(dilation)
    items = x.frames.items
    sources = tap_sources(len(items), weight.shape[2], stride[0], padding[0], dilation[0])
    sources = [[(tap, source) for tap, source in row if items[source] is not None] for row in sources]
    if not all(sources):
        raise NoRule("an output frame that lies wholly on padding")
    plane: dict[str, Any] = {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}
    if groups > 1:
        exact = x.frames.exact
        taps = [weight[:, :, i] for i in range(weight.shape[2])]
        frames = [_sum_of_taps([(exact[source], taps[tap]) for tap, source in row], bias, plane) for row in sources]
        return Frames(tuple(frames), len(weight))
    # A 1x1x1 convolution mostly feeds a grouped one, for which further channels would have to be cut off again.
    width = len(weight) + (-len(weight) % CHANNEL_MULTIPLE if math.prod(weight.shape[2:]) > 1 else 0)
    if bias is not None:
        bias = F.pad(bias, (0, width - len(weight)))
    taps = [_wide(weight[:, :, i], width, x.frames.width) for i in range(weight.shape[2])]
    kernels = {used: concatenate([taps[i] for i in used], 1) for used in {tuple(tap for tap, _ in row) for row in sources}}
    columns = [concatenate([frame for _, source in row if (frame := items[source]) is not None], 1) for row in sources]
    frames = [F.conv2d(column, kernels[tuple(tap for tap, _ in row)], bias, **plane) for column, row in zip(columns, sources, strict=True)]
    return Frames(tuple(frames), len(weight))


def _wide(tap: Tensor, out_channels: int, in_channels: int) -> Tensor:
    """A tap's weight with zeros for further output and input channels."""
    return pad_channels(F.pad(tap, (0, 0, 0, 0, 0, 0, 0, out_channels - len(tap))), in_channels)


def _sum_of_taps(taps: list[tuple[Tensor, Tensor]], bias: Tensor | None, plane: dict[str, Any]) -> Tensor:
    parts = [F.conv2d(frame, tap, bias if i == 0 else None, **plane) for i, (frame, tap) in enumerate(taps)]
    return reduce(torch.add, parts)


def avg_pool3d(
    x: Value, kernel: Triple, stride: Triple = (), padding: Triple = (0,), ceil_mode: bool = False, count_padding: bool = True,
    divisor: int | None = None,
) -> Frames:  # fmt: skip
    """A depthwise convolution with equal weights."""
    kernel, padding = _triple(kernel), _triple(padding)
    if ceil_mode or (any(padding) and not count_padding):
        raise NoRule("ceil_mode, or padding that is not counted")
    channels = x.shape[1]
    weight = torch.full((channels, 1, *kernel), 1.0 / (divisor or math.prod(kernel)))
    return conv3d(x, weight, None, _triple(stride or kernel), padding, (1,), channels)


def max_pool3d(
    x: Value, kernel: Triple, stride: Triple = (), padding: Triple = (0,), dilation: Triple = (1,), ceil_mode: bool = False
) -> Frames:  # fmt: skip
    """A 2D pool of each frame, then the maximum of the frames under each temporal window."""
    kernel, padding, dilation = _triple(kernel), _triple(padding), _triple(dilation)
    stride = _triple(stride or kernel)
    pooled = x.frames.map(lambda frame: F.max_pool2d(frame, kernel[1:], stride[1:], padding[1:], dilation[1:], ceil_mode))
    if (kernel[0], stride[0], padding[0]) == (1, 1, 0):
        return pooled
    if ceil_mode:
        raise NoRule("a max pool over time with ceil_mode")
    sources = tap_sources(len(pooled.items), kernel[0], stride[0], padding[0], dilation[0])
    return Frames(tuple(reduce(torch.maximum, [pooled.exact[source] for _, source in row]) for row in sources), pooled.channels)


def relu(x: Value) -> Value:
    return x.map(F.relu) if isinstance(x, Frames) else Volume(F.relu(x.data), x.axes)


def add(x: Value, y: Value, *, alpha: float = 1) -> Frames:
    if not isinstance(x, Value) or not isinstance(y, Value) or x.shape != y.shape or alpha != 1:
        raise NoRule("an addition of values of different shapes")
    return Frames(tuple(a + b for a, b in zip(x.frames.exact, y.frames.exact, strict=True)), x.shape[1])


def pad(x: Value, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Frames:
    """``amounts`` as torch gives them: last axis first, a pair an axis."""
    if mode != "constant" or value or (len(amounts) > 6 and any(amounts[6:])):
        raise NoRule(f"mode {mode!r}, a value other than 0, or padding of the channels")
    *plane, front, back = (*amounts, *[0] * (6 - len(amounts)))
    padded = x.frames.map(lambda frame: F.pad(frame, plane) if any(plane) else frame)
    return Frames((*[None] * front, *padded.items, *[None] * back), padded.channels)


def cat(values: Sequence[Value], dim: int = 0) -> Frames:
    if dim % 5 == 0 or not all(isinstance(value, Value) for value in values):
        raise NoRule("a concatenation along the batch")
    frames = [value.frames for value in values]
    if dim % 5 == 2:
        width = max(value.width for value in frames)
        widened = [value.map(lambda frame: pad_channels(frame, width)).items for value in frames]
        return Frames(sum(widened, ()), frames[0].channels)
    axis = {1: 1, 3: 2, 4: 3}[dim % 5]
    joined = tuple(torch.cat(parts, dim=axis) for parts in zip(*(value.exact for value in frames), strict=True))
    return Frames(joined, joined[0].shape[1])


def slice_tensor(x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    """Steps are taken along time only, where frames are picked."""
    kept = range(x.shape[dim])[start:end:step]
    if len(kept) == x.shape[dim]:
        return x
    if dim % 5 == 2 and len(kept):
        return Frames(tuple(x.frames.items[t] for t in kept), x.frames.channels)
    if dim % 5 == 0 or step != 1 or not len(kept):
        raise NoRule("a slice with a step outside time, or an empty one")
    return Volume(x.volume.data.narrow(x.volume.axes.index(dim % 5), kept.start, len(kept)), x.volume.axes)


def mean(x: Value, dims: Sequence[int], keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """The frames' sum, for a mean over space too its 2D global average pool."""
    axes = sorted(dim % 5 for dim in dims)
    if axes not in ([2], [2, 3, 4]) or keepdim or dtype is not None:
        raise NoRule("a mean over other axes than 2 or (2, 3, 4), or one that keeps them")
    total = reduce(torch.add, x.frames.exact)
    total = total if axes == [2] else total.mean(dim=(2, 3), keepdim=True)
    total = total if x.shape[2] == 1 else total * (1.0 / x.shape[2])
    return total if axes == [2] else total.flatten(1)


def reshape(x: Value | Tensor, shape: Sequence[int]) -> Volume | Tensor:
    flat = x if isinstance(x, Tensor) else x.volume.original
    shape = [flat.numel() // -math.prod(shape) if size == -1 else size for size in shape]
    if len(shape) != 5:
        return flat.reshape(shape)
    if shape[0] != 1:
        raise NoRule(f"a reshape to rank 5 with a batch of {shape[0]}")
    return Volume(flat.reshape(shape[1:]), (1, 2, 3, 4))


def flatten(x: Value, start: int = 0, end: int = -1) -> Volume | Tensor:
    start, end = start % 5, end % 5
    return reshape(x, [*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]])


def unflatten(x: Value | Tensor, dim: int, sizes: Sequence[int]) -> Volume | Tensor:
    dim %= len(x.shape)
    return reshape(x, [*x.shape[:dim], *sizes, *x.shape[dim + 1 :]])


def permute(x: Value, dims: Sequence[int]) -> Volume:
    if dims[0] != 0:
        raise NoRule("a permutation that moves the batch")
    return Volume(x.volume.data, tuple(list(dims).index(axis) for axis in x.volume.axes))


def movedim(x: Value, source: int, destination: int) -> Volume:
    order = [axis for axis in range(5) if axis != source % 5]
    order.insert(destination % 5, source % 5)
    return permute(x, order)


def unsqueeze(x: Tensor, dim: int) -> Value | Tensor:
    if x.ndim != 4:
        return x.unsqueeze(dim)
    if dim % 5 == 0:
        return Volume(x, (1, 2, 3, 4))
    if dim % 5 == 2 and len(x) == 1:
        return Frames((x,), x.shape[1])
    raise NoRule("a fifth axis that is neither the batch nor time")


def same(x: Value, *_: Any, **__: Any) -> Value:
    """Operations that change nothing in a graph without side effects."""
    return x


def to(x: Value, dtype: torch.dtype, *_: Any, **__: Any) -> Volume:
    return Volume(x.volume.data.to(dtype), x.volume.axes)


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
