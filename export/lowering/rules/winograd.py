"""The strategy that computes a convolution with three temporal taps two output frames at a time, by Winograd's minimal filtering F(2, 3) along time.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1, here on the axis of time.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering import costs
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import TIME, Frames, Value, fits_one_batch, from_batch, take_frames, to_batch, to_frames

TAPS = 3
DIFFERENCES = (((0, 1), (2, -1)), ((1, 1), (2, 1)), ((2, 1), (1, -1)), ((1, 1), (3, -1)))
"""For each of the four kernels, what it convolves: (offset, sign) of two of four consecutive frames."""
SUMS = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))
"""How the four results are added to the two output frames."""
Signed = tuple[int, Tensor]
"""A sign, 1 or -1, and a value."""


def fits(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether there are three temporal taps, and the multiplications saved are worth more than the additions needed."""
    if not profile.gemm or not profile.winograd or conv.groups != 1:
        return False
    out_channels, channels, taps, *kernel = conv.weight.shape
    three = (taps, conv.stride[0], conv.dilation[0]) == (TAPS, 1, 1) and conv.padding[0] <= 1 and conv.x.shape[TIME] > 1
    return three and math.prod(kernel) * channels * out_channels > costs.ADDITION_COST * (channels + out_channels)


def lower(profile: EngineProfile, conv: Convolution) -> Frames:
    """Compute every two output frames by four 2D convolutions instead of six."""
    parts = kernels(conv.weight)

    def convolve(frame: Tensor, number: int) -> Tensor:
        return F.conv2d(frame, parts[number], conv.bias if number == 1 else None, conv.stride[1:], conv.padding[1:], conv.dilation[1:])

    return Frames(tuple(two_at_a_time(to_frames(conv.x).tensors, conv.padding[0], convolve)))


def fits_batch(profile: EngineProfile, conv: Convolution) -> bool:
    """Whether it fits and all frames are so small that the matrix products over time, by which all of them are transformed at once, pay; in
    engines with free permutations it was not tried."""
    if profile.free_permutations or not fits(profile, conv) or not fits_one_batch(profile, conv.x):
        return False
    out_channels, channels, _, *kernel = conv.weight.shape
    additions = costs.ADDITION_COST * out_channels + max(costs.ADDITION_COST, conv.x.shape[TIME]) * channels
    return math.prod(conv.x.shape) <= costs.BATCHED_WINOGRAD_LIMIT and math.prod(kernel) * channels * out_channels > additions


def lower_batch(profile: EngineProfile, conv: Convolution) -> Value:
    """Compute all pairs of output frames by one 2D convolution of four groups, one for each kernel, between two matrix products over time."""
    batch, out_channels, count = to_batch(conv.x), len(conv.weight), len(conv.sources)
    length, channels, height, width = batch.shape
    pairs = -(-count // 2)
    mixed = torch.mm(_differences(pairs, length, conv.padding[0]), batch.reshape(length, -1)).reshape(pairs, 4 * channels, height, width)
    zeros = torch.zeros(out_channels)
    bias = None if conv.bias is None else torch.cat([zeros, conv.bias, zeros, zeros])
    made = F.conv2d(mixed, torch.cat(kernels(conv.weight)), bias, conv.stride[1:], conv.padding[1:], conv.dilation[1:], 4)
    outputs = torch.matmul(torch.tensor(SUMS), made.reshape(pairs, 4, -1)).reshape(2 * pairs, out_channels, *conv.spatial_size)
    return from_batch(take_frames(outputs, range(count)))


def _differences(pairs: int, length: int, padding: int) -> Tensor:
    """Return the matrix `(4 * pairs, length)` that makes the inputs of the four kernels for each pair of output frames: the sums and differences of
    the four padded input frames from `2 * pair` on."""
    rows = []
    for pair in range(pairs):
        for terms in DIFFERENCES:
            places = {2 * pair + offset - padding: sign for offset, sign in terms}
            rows.append([float(places.get(frame, 0)) for frame in range(length)])
    return torch.tensor(rows)


def kernels(weight: Tensor) -> list[Tensor]:
    """Return the four 2D kernels `(O, C, kH, kW)` of F(2, 3) for a kernel `(O, C, 3, kH, kW)`."""
    first, middle, last = (weight[:, :, tap] for tap in range(TAPS))
    return [first, (first + middle + last) / 2, (first - middle + last) / 2, last]


def two_at_a_time(frames: Sequence[Tensor], padding: int, convolve: Callable[[Tensor, int], Tensor]) -> list[Tensor]:
    """Return the output frames.

    Args:
        frames: the input frames.
        padding: the number of frames of zeros, 0 or 1, before the first and after the last input frame.
        convolve: the 2D convolution of a frame with one of the four kernels, given by its number; number 1 adds the bias.
    """
    padded = [*[None] * padding, *frames, *[None] * padding]

    def of_difference(x: Tensor | None, y: Tensor | None, number: int) -> list[Signed]:
        if x is not None:
            return [(1, convolve(x if y is None else x - y, number))]
        return [] if y is None else [(-1, convolve(y, number))]

    outputs: list[Tensor] = []
    count = len(padded) - TAPS + 1
    for t in range(0, count, 2):
        a, b, c, d = (*padded[t : t + 4], None)[:4]
        assert b is not None
        middle, outer = convolve(b if c is None else b + c, 1), of_difference(c, b, 2)
        outputs.append(reduce(_added, [*outer, *of_difference(a, c, 0)], middle))
        if t + 1 < count:
            outputs.append(reduce(_added, [(-sign, value) for sign, value in [*outer, *of_difference(b, d, 3)]], middle))
    return outputs


def _added(total: Tensor, part: Signed) -> Tensor:
    sign, value = part
    return total + value if sign > 0 else total - value
