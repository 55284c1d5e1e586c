"""Strategies that write a 3D convolution as direct 2D convolutions: frame by frame, batched, with frames as channels, or with time as rows."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering import costs
from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import (
    TIME,
    Frames,
    Value,
    concatenate,
    fits_one_batch,
    from_batch,
    take_frames,
    temporal_taps,
    to_batch,
    to_frames,
    to_lazy,
)

aten = torch.ops.aten


def has_computed_weight(profile: EngineProfile, conv: Convolution) -> bool:
    return not isinstance(conv.weight, Tensor)


def fits_time_as_rows(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it is 1x1 spatially and has one group, in an engine with free permutations."""
    return profile.gemm and conv.groups == 1 and conv.is_temporal and len(conv.taps) > 1 and profile.free_permutations


def time_as_rows(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute it as one 2D convolution `(kT, 1)` of an image of (time, pixels)."""
    batch = to_batch(conv.x)
    count, channels, height, width = batch.shape
    rows = batch.permute(1, 0, 2, 3).reshape(1, channels, count, height * width)
    summed = F.conv2d(rows, conv.weight[..., 0], conv.bias, (conv.stride[0], 1), (conv.padding[0], 0), (conv.dilation[0], 1))
    return from_batch(summed.reshape(len(conv.weight), -1, height, width).permute(1, 0, 2, 3))


def fits_frames_as_channels(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it is a narrow depthwise 3x3x3 convolution of three or more frames, in an engine with free permutations."""
    narrow = fits_one_batch(profile, conv.x) and conv.groups <= costs.NARROW_DEPTHWISE and conv.x.shape[TIME] > 2
    return profile.free_permutations and narrow and conv.is_depthwise_3x3x3


def frames_as_channels(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute it by a depthwise 2D convolution for each temporal tap, of all frames as an image of `T * C` channels; the results are added."""
    _, channels, count, height, width = conv.x.shape
    frames = to_lazy(conv.x).permute((0, 2, 1, 3, 4)).tensor((1, count * channels, height, width))
    weight, bias = conv.weight, conv.bias

    def tap(number: int, part: Tensor) -> Tensor:
        repeats = part.shape[1] // channels
        kernel = weight[:, :, number].repeat(repeats, 1, 1, 1)
        return F.conv2d(part, kernel, bias.repeat(repeats) if bias is not None and number == 1 else None, padding=1, groups=part.shape[1])

    zeros = torch.zeros(1, channels, height, width)  # What the first and the last tap give where they read the padding.
    first = torch.cat([zeros, tap(0, frames[:, :-channels])], 1)
    last = torch.cat([tap(2, frames[:, channels:]), zeros], 1)
    summed = tap(1, frames) + first + last
    return LazyPermutation.of(summed, (1, count, channels, height, width)).permute((0, 2, 1, 3, 4))


def fits_batched_taps(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether all frames fit one batch, and one temporal tap reads a frame for every output frame.

    In engines with free permutations it applies to a single tap only, because adding the results of several taps costs more there than computing
    frame by frame.
    """
    several = profile.free_permutations and len([tap for tap in conv.taps if tap]) > 1
    return fits_one_batch(profile, conv.x) and max(map(len, conv.taps)) == len(conv.sources) and not several


def batched_taps(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute it by a 2D convolution for each temporal tap, of the batch of frames that the tap reads; the results are added."""
    full = max(range(len(conv.taps)), key=lambda tap: len(conv.taps[tap]))  # This tap reaches every output frame, so it adds the bias.

    def convolve(frames: Tensor, tap: int) -> Tensor:
        return F.conv2d(frames, conv.weight[:, :, tap], conv.bias if tap == full else None, **conv.spatial_settings)

    return from_batch(sum_over_taps(to_batch(conv.x), conv.taps, convolve))


def fits_per_frame_taps(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it is grouped, or has large weights that would be stored twice, because the first and last frames have fewer taps."""
    ends = conv.weight.numel() > costs.SHARED_WEIGHT_ELEMENTS and len({len(row) for row in conv.nonzero_sources if row}) > 1
    return conv.groups > 1 or ends


def per_frame_taps(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute each output frame as the sum of a 2D convolution for each temporal tap; the step may compute the weights."""
    frames, kernels, made = to_frames(conv.x).tensors, temporal_taps(conv.weight), []
    for row in filter(None, conv.nonzero_sources):
        biases = [conv.bias, *[None] * (len(row) - 1)]
        parts = [F.conv2d(frames[source], kernels[tap], bias, **conv.spatial_settings) for (tap, source), bias in zip(row, biases, strict=True)]
        made.append(reduce(torch.add, parts))
    return _with_empty_frames(conv, made)


def taps_as_channels(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute each output frame by one 2D convolution of the input frames that its temporal taps read, concatenated on the channel axis."""
    frames, rows = to_frames(conv.x), [row for row in conv.nonzero_sources if row]
    kernels = {taps: concatenate([conv.weight[:, :, tap] for tap in taps], 1) for taps in {tuple(tap for tap, _ in row) for row in rows}}
    inputs = [concatenate([frame for _, source in row if (frame := frames.items[source]) is not None], 1) for row in rows]
    made = [F.conv2d(x, kernels[tuple(tap for tap, _ in row)], conv.bias, **conv.spatial_settings) for x, row in zip(inputs, rows, strict=True)]
    return _with_empty_frames(conv, made)


def _with_empty_frames(conv: Convolution, made: list[Tensor]) -> Frames:
    """Return all output frames: those computed, and the bias alone where every tap reads zeros."""
    if all(conv.nonzero_sources):
        return Frames(tuple(made))
    empty = torch.zeros(1, conv.weight.shape[0], *conv.spatial_size) + (0.0 if conv.bias is None else conv.bias.reshape(1, -1, 1, 1))
    frames = iter(made)
    return Frames(tuple(next(frames) if row else empty for row in conv.nonzero_sources))


def sum_over_taps(data: Tensor, taps: Sequence[dict[int, int]], function: Callable[[Tensor, int], Tensor], dim: int = 0) -> Tensor:
    """Return the sum over the temporal taps of a function of the frames that each tap reads.

    Args:
        data: frames `(T, C, H, W)`, or another order of axes.
        taps: for each tap `{output frame: input frame}`, without those on the padding. At least one tap has every output frame.
        function: called with the frames that a tap reads, and the tap's number.
        dim: the axis of time of `data`.
    """
    full, *others = sorted((number for number, tap in enumerate(taps) if tap), key=lambda number: -len(taps[number]))
    parts = {number: function(take_frames(data, list(taps[number].values()), dim), number) for number in (full, *others)}
    return reduce(lambda total, number: _added(total, parts[number], min(taps[number]), dim), others, parts[full])


def _added(total: Tensor, part: Tensor, first: int, dim: int) -> Tensor:
    """Return `total` with `part` added to its entries from `first` on."""
    end, length = first + part.shape[dim], total.shape[dim]
    if part.shape == total.shape:
        return total + part
    pieces = [aten.slice.Tensor(total, dim, start, stop) for start, stop in ((0, first), (first, end), (end, length))]
    pieces[1] = pieces[1] + part
    return concatenate([piece for piece in pieces if piece.shape[dim]], dim)
