"""The strategy that computes a convolution with three temporal taps two output frames at a time, by Winograd's minimal filtering F(2, 3) along time.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1, here on the axis of time.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering import costs
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import TIME, Frames, to_frames

TAPS = 3
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
