"""3D convolutions and batch norms, on frames."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import TIME, Frames, Value, concatenate, frames_of, pad_channels, rows, small, stack_of, stacked

aten = torch.ops.aten
Triple = Sequence[int]
CHANNEL_MULTIPLE = 8


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
    """For each output frame a 2D convolution of all its taps as input channels or, if it is grouped, one a tap, summed.

    Of a small value all frames at once, on the batch axis.
    """
    stride, padding, dilation = triple(stride), triple(padding), triple(dilation)
    sources = tap_sources(x.shape[TIME], weight.shape[2], stride[0], padding[0], dilation[0])
    plane: dict[str, Any] = {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}
    taps = [{t: source for t, row in enumerate(sources) for tap, source in row if tap == k} for k in range(weight.shape[2])]
    if small(x) and max(map(len, taps)) == len(sources):
        return stacked(_stacked(stack_of(x), weight, bias, taps, plane))
    value = frames_of(x)
    sources = [[(tap, source) for tap, source in row if value.items[source] is not None] for row in sources]
    computed = (_grouped if groups > 1 else _dense)(value, weight, bias, [row for row in sources if row], plane)
    if all(sources):
        return Frames(tuple(computed), len(weight))
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(value.shape[3:], padding[1:], dilation[1:], weight.shape[3:], stride[1:], strict=True)
    ]
    width = computed[0].shape[1] if computed else len(weight)
    alone = torch.zeros(1, width, *sizes)
    if bias is not None:
        alone = alone + F.pad(bias, (0, width - len(bias))).reshape(1, -1, 1, 1)
    rows = iter(computed)
    return Frames(tuple(next(rows) if row else alone for row in sources), len(weight))


def _stacked(stack: Tensor, weight: Tensor, bias: Tensor | None, taps: list[dict[int, int]], plane: dict[str, Any]) -> Tensor:
    """The sum over the taps of 2D convolutions, the bias in the one that every frame has."""
    full = max(range(len(taps)), key=lambda tap: len(taps[tap]))
    return sum_over_taps(stack, taps, lambda frames, tap: F.conv2d(frames, weight[:, :, tap], bias if tap == full else None, **plane))


def sum_over_taps(stack: Tensor, taps: Sequence[dict[int, int]], function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The sum over the temporal taps of a function of the frames under each.

    Args:
        stack: frames ``(T, C, H, W)``.
        taps: for each tap, which input frame lies under it for each output frame; none on the padding. One has all.
        function: of frames and the number of their tap.
    """
    full, *others = sorted((number for number, tap in enumerate(taps) if tap), key=lambda number: -len(taps[number]))
    parts = {number: function(rows(stack, list(taps[number].values())), number) for number in (full, *others)}
    return reduce(lambda total, number: _added(total, parts[number], min(taps[number])), others, parts[full])


def _added(total: Tensor, part: Tensor, first: int) -> Tensor:
    """Adds frames to those of ``total`` from its ``first`` on."""
    end = first + len(part)
    pieces = [total[:first], total[first:end] + part if len(part) < len(total) else total + part, total[end:]]
    return concatenate([piece for piece in pieces if len(piece)], 0)


def _dense(value: Frames, weight: Tensor, bias: Tensor | None, sources: list[list[tuple[int, int]]], plane: dict[str, Any]) -> list[Tensor]:
    # A 1x1x1 convolution mostly feeds a grouped one, for which further channels would have to be cut off again.
    width = len(weight) + (-len(weight) % CHANNEL_MULTIPLE if math.prod(weight.shape[2:]) > 1 else 0)
    if bias is not None:
        bias = F.pad(bias, (0, width - len(weight)))
    taps = [_wide(weight[:, :, i], width, value.width) for i in range(weight.shape[2])]
    kernels = {used: concatenate([taps[i] for i in used], 1) for used in {tuple(tap for tap, _ in row) for row in sources}}
    columns = [concatenate([frame for _, source in row if (frame := value.items[source]) is not None], 1) for row in sources]
    return [F.conv2d(column, kernels[tuple(tap for tap, _ in row)], bias, **plane) for column, row in zip(columns, sources, strict=True)]


def _grouped(value: Frames, weight: Tensor, bias: Tensor | None, sources: list[list[tuple[int, int]]], plane: dict[str, Any]) -> list[Tensor]:
    frames = value.exact
    taps = [weight[:, :, i] for i in range(weight.shape[2])]
    if weight.shape[1] == 1 and len(weight) == value.channels < value.width:  # Depthwise: further channels are a business of their own.
        frames, further = value.written_out, value.width - value.channels
        taps = [F.pad(tap, (0, 0, 0, 0, 0, 0, 0, further)) for tap in taps]
        bias, plane = None if bias is None else F.pad(bias, (0, further)), {**plane, "groups": value.width}
    return [_sum_of_taps([(frames[source], taps[tap]) for tap, source in row], bias, plane) for row in sources]


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
        value = Frames((*value.items, *[None] * behind[0]), value.channels)
    return conv3d(value, weight, bias, stride, around, dilation, groups)


def batch_norm(
    x: Value, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, _: float, epsilon: float
) -> tuple[Frames, None, None]:
    """In eval mode, where no convolution before it takes it in: a depthwise 1x1 convolution."""
    scale = (variance + epsilon).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    channels = len(scale)
    return frames_of(x).each(lambda frame: F.conv2d(frame, scale.reshape(-1, 1, 1, 1), shift, groups=channels)), None, None


def _wide(tap: Tensor, out_channels: int, in_channels: int) -> Tensor:
    """A tap's weight with zeros for further output and input channels."""
    return pad_channels(F.pad(tap, (0, 0, 0, 0, 0, 0, 0, out_channels - len(tap))), in_channels)


def _sum_of_taps(taps: list[tuple[Tensor, Tensor]], bias: Tensor | None, plane: dict[str, Any]) -> Tensor:
    parts = [F.conv2d(frame, tap, bias if i == 0 else None, **plane) for i, (frame, tap) in enumerate(taps)]
    return reduce(torch.add, parts)


RULES: dict[Any, Callable[..., Any]] = {
    aten.conv3d.default: conv3d,
    aten.conv3d.padding: conv3d_named_padding,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
}
