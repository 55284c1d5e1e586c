"""3D convolutions and batch norms, on frames."""

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
    concatenate,
    frames_of,
    in_planes,
    rows,
    small,
    stack_of,
    stacked,
    view_of,
)
from clipstep.export.lowering.rules.planes import is_depthwise_of_three, whole_conv3d
from clipstep.export.lowering.rules.products import products
from clipstep.export.lowering.rules.winograd import fast_conv3d
from clipstep.export.lowering.view import View

aten = torch.ops.aten
FEW_CHANNELS = 4
"""Of at most so many channels all the numbers under a kernel are gathered first: kernels are slow on few channels."""
NARROW = 64
"""A depthwise convolution of at most so many channels costs less with all frames side by side, as channels of one."""
PRODUCT_LIMIT = 2**20
"""At most so many numbers are gathered for one product: 4 MB."""
COPIED_WEIGHTS = 2**16
"""Kernels of at most so many numbers are written once more for the frames at the ends, which have fewer taps."""


def triple(values: int | Triple) -> tuple[int, ...]:
    """torch stores a setting that is the same on all axes as one number."""
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * 3 if len(values) == 1 else values


def tap_sources(length: int, taps: int, stride: int, padding: int, dilation: int) -> list[list[tuple[int, int]]]:
    """For each output frame the pairs (temporal tap, input frame under it), without those on the zero padding."""
    count = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    sources = [[(tap, t * stride - padding + tap * dilation) for tap in range(taps)] for t in range(count)]
    return [[(tap, source) for tap, source in row if 0 <= source < length] for row in sources]


def conv3d(
    x: Value, weight: Tensor, bias: Tensor | None = None, stride: Triple = (1,), padding: Triple = (0,), dilation: Triple = (1,), groups: int = 1
) -> Value:  # fmt: skip
    """For each output frame a 2D convolution of all its taps as input channels or, if it is grouped or large, one a tap, summed.

    Of a small value all frames at once, on the batch axis, in its own order or as channels; of few channels products of matrices; with
    three temporal taps two frames at a time.
    """
    stride, padding, dilation = triple(stride), triple(padding), triple(dilation)
    sources = tap_sources(x.shape[TIME], weight.shape[2], stride[0], padding[0], dilation[0])
    plane: dict[str, Any] = {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}
    taps = [{t: source for t, row in enumerate(sources) for tap, source in row if tap == k} for k in range(weight.shape[2])]
    size = plane_size(x.shape[3:], weight.shape[3:], stride[1:], padding[1:], dilation[1:])
    style = STYLE.get()
    if style.products and groups == 1:
        pointwise = (weight.shape[3:], stride[1:], padding[1:]) == ((1, 1), (1, 1), (0, 0))
        numbers = math.prod(weight.shape[1:]) * math.prod(size)
        unfit = _ragged(len(weight)) and len(taps) > 1 if pointwise else weight.shape[1] <= FEW_CHANNELS
        if unfit and all(sources) and numbers <= PRODUCT_LIMIT:
            return products(frames_of(x), weight, bias, sources, plane, size)
        if style.fast_time and (fast := fast_conv3d(x, weight, bias, stride, padding, dilation)) is not None:
            return fast
        if pointwise and len(taps) > 1 and style.free_axes:
            return stacked(_time_as_rows(stack_of(x), weight, bias, stride, padding, dilation))
    if in_planes(x) and (computed := whole_conv3d(x, weight, bias, stride, padding, dilation, groups, (len(sources), *size))) is not None:
        return computed
    narrow = small(x) and groups <= NARROW and x.shape[TIME] > 2
    if style.free_axes and narrow and is_depthwise_of_three(x, weight, stride, padding, dilation, groups):
        return _side_by_side(x, weight, bias)
    by_frame = style.free_axes and len([tap for tap in taps if tap]) > 1  # To cut and join stacks costs more than frames do.
    if small(x) and max(map(len, taps)) == len(sources) and not by_frame:
        return stacked(_stacked(stack_of(x), weight, bias, taps, plane))
    value = frames_of(x)
    sources = [[(tap, source) for tap, source in row if value.items[source] is not None] for row in sources]
    under = [row for row in sources if row]
    ends = weight.numel() > COPIED_WEIGHTS and len({len(row) for row in under}) > 1
    made = (_tap_by_tap if groups > 1 or ends else _dense)(value, weight, bias, under, plane)
    if all(sources):
        return Frames(tuple(made))
    alone = torch.zeros(1, len(weight), *size) + (0.0 if bias is None else bias.reshape(1, -1, 1, 1))
    frames = iter(made)
    return Frames(tuple(next(frames) if row else alone for row in sources))


def plane_size(sizes: Triple, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> list[int]:
    """Rows and columns of what a 2D kernel gives."""
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)]


def _stacked(stack: Tensor, weight: Tensor, bias: Tensor | None, taps: list[dict[int, int]], plane: dict[str, Any]) -> Tensor:
    """The sum over the taps of 2D convolutions, the bias in the one that every frame has."""
    full = max(range(len(taps)), key=lambda tap: len(taps[tap]))
    return sum_over_taps(stack, taps, lambda frames, tap: F.conv2d(frames, weight[:, :, tap], bias if tap == full else None, **plane))


def _ragged(channels: int) -> bool:
    """Whether kernels, which compute 8 channels at a time, would waste a fifth or more."""
    return channels / (channels + -channels % 8) <= 0.8


def _time_as_rows(stack: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple, dilation: Triple) -> Tensor:
    """A convolution of time alone, as a 2D one over (time, pixels)."""
    count, channels, height, width = stack.shape
    rows = stack.permute(1, 0, 2, 3).reshape(1, channels, count, height * width)
    summed = F.conv2d(rows, weight[..., 0], bias, (stride[0], 1), (padding[0], 0), (dilation[0], 1))
    return summed.reshape(len(weight), -1, height, width).permute(1, 0, 2, 3)


def _side_by_side(x: Value, weight: Tensor, bias: Tensor | None) -> Value:
    """A depthwise convolution of three by three by three, of all frames at once, each tap's as one of 2D of ``T * C`` channels."""
    _, channels, count, height, width = x.shape
    frames = view_of(x).permute((0, 2, 1, 3, 4)).tensor((1, count * channels, height, width))

    def tap(number: int, some: Tensor) -> Tensor:
        many = some.shape[1] // channels
        plane = weight[:, :, number].repeat(many, 1, 1, 1)
        return F.conv2d(some, plane, bias.repeat(many) if bias is not None and number == 1 else None, padding=1, groups=some.shape[1])

    none = torch.zeros(1, channels, height, width)  # Of the taps on the padding.
    before = torch.cat([none, tap(0, frames[:, :-channels])], 1)
    behind = torch.cat([tap(2, frames[:, channels:]), none], 1)
    return View.of(tap(1, frames) + before + behind, (1, count, channels, height, width)).permute((0, 2, 1, 3, 4))


def sum_over_taps(stack: Tensor, taps: Sequence[dict[int, int]], function: Callable[[Tensor, int], Tensor], dim: int = 0) -> Tensor:
    """The sum over the temporal taps of a function of the frames under each.

    Args:
        stack: frames ``(T, C, H, W)``, or another order of axes.
        taps: for each tap, which input frame lies under it for each output frame; none on the padding. One has all.
        function: of frames and the number of their tap.
        dim: the axis of time.
    """
    full, *others = sorted((number for number, tap in enumerate(taps) if tap), key=lambda number: -len(taps[number]))
    parts = {number: function(rows(stack, list(taps[number].values()), dim), number) for number in (full, *others)}
    return reduce(lambda total, number: _added(total, parts[number], min(taps[number]), dim), others, parts[full])


def _added(total: Tensor, part: Tensor, first: int, dim: int) -> Tensor:
    """Adds frames to those of ``total`` from its ``first`` on."""
    end, length = first + part.shape[dim], total.shape[dim]
    if part.shape == total.shape:
        return total + part
    pieces = [aten.slice.Tensor(total, dim, start, stop) for start, stop in ((0, first), (first, end), (end, length))]
    pieces[1] = pieces[1] + part
    return concatenate([piece for piece in pieces if piece.shape[dim]], dim)


def _dense(value: Frames, weight: Tensor, bias: Tensor | None, sources: list[list[tuple[int, int]]], plane: dict[str, Any]) -> list[Tensor]:
    kernels = {used: concatenate([weight[:, :, tap] for tap in used], 1) for used in {tuple(tap for tap, _ in row) for row in sources}}
    columns = [concatenate([frame for _, source in row if (frame := value.items[source]) is not None], 1) for row in sources]
    return [F.conv2d(column, kernels[tuple(tap for tap, _ in row)], bias, **plane) for column, row in zip(columns, sources, strict=True)]


def _tap_by_tap(value: Frames, weight: Tensor, bias: Tensor | None, sources: list[list[tuple[int, int]]], plane: dict[str, Any]) -> list[Tensor]:
    return [_sum_of_taps([(value.exact[source], weight[:, :, tap]) for tap, source in row], bias, plane) for row in sources]


def conv3d_named_padding(
    x: Value, weight: Tensor, bias: Tensor | None = None, stride: Triple = (1,), padding: str = "valid", dilation: Triple = (1,), groups: int = 1
) -> Value:  # fmt: skip
    """``padding="same"`` puts the odd row, column or frame at the end."""
    value, around = frames_of(x), [0, 0, 0]
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(triple(dilation), weight.shape[2:], strict=True)]
        around = [total // 2 for total in totals]
        behind = [total % 2 for total in totals]
        if any(behind[1:]):
            value = value.map(lambda frame: F.pad(frame, (0, behind[2], 0, behind[1])))
        value = Frames((*value.items, *[None] * behind[0]))
    return conv3d(value, weight, bias, stride, around, dilation, groups)


def batch_norm(
    x: Value, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, _: float, epsilon: float
) -> tuple[Frames, None, None]:
    """In eval mode, where no convolution before it takes it in: a depthwise 1x1 convolution."""
    scale = (variance + epsilon).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    channels = len(scale)
    return frames_of(x).each(lambda frame: F.conv2d(frame, scale.reshape(-1, 1, 1, 1), shift, groups=channels)), None, None


def _sum_of_taps(taps: list[tuple[Tensor, Tensor]], bias: Tensor | None, plane: dict[str, Any]) -> Tensor:
    parts = [F.conv2d(frame, tap, bias if i == 0 else None, **plane) for i, (frame, tap) in enumerate(taps)]
    return reduce(torch.add, parts)


RULES: dict[Any, Callable[..., Any]] = {
    aten.conv3d.default: conv3d,
    aten.conv3d.padding: conv3d_named_padding,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
}
