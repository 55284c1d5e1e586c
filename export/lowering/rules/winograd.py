"""Convolutions with three temporal taps, two frames at a time, by Winograd's minimal filtering F(2, 3).

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1, here on the axis of time.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import TIME, Frames, Triple, Value, frames_of

TAPS = 3
ADDITION = 8
"""To add two numbers that are in memory takes about as long as so many multiply-accumulates."""
Signed = tuple[int, Tensor]
"""A sign, 1 or -1, and a value."""


def fast_conv3d(
    x: Value, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple, dilation: Triple
) -> Frames | None:  # fmt: skip
    """The convolution, or nothing where it has not three temporal taps or where that saves less than it adds."""
    out_channels, channels, taps, *kernel = weight.shape
    fits = (taps, stride[0], dilation[0]) == (TAPS, 1, 1) and padding[0] <= 1 and x.shape[TIME] > 1
    if not fits or math.prod(kernel) * channels * out_channels <= ADDITION * (channels + out_channels):
        return None
    parts = kernels(weight)

    def convolve(frame: Tensor, number: int) -> Tensor:
        return F.conv2d(frame, parts[number], bias if number == 1 else None, stride[1:], padding[1:], dilation[1:])

    return Frames(tuple(two_at_a_time(frames_of(x).exact, padding[0], convolve)))


def kernels(weight: Tensor) -> list[Tensor]:
    """The four 2D kernels ``(O, C, kH, kW)`` that take the place of one ``(O, C, 3, kH, kW)``."""
    first, middle, last = (weight[:, :, tap] for tap in range(TAPS))
    return [first, (first + middle + last) / 2, (first - middle + last) / 2, last]


def two_at_a_time(frames: Sequence[Tensor], padding: int, convolve: Callable[[Tensor, int], Tensor]) -> list[Tensor]:
    """The output frames, each two of them by four 2D convolutions in place of six.

    Args:
        frames: those of the input.
        padding: of time, 0 or 1 frames of zeros at each end.
        convolve: of a frame with the kernel of that number; with number 1 it adds the bias.
    """
    around = [*[None] * padding, *frames, *[None] * padding]

    def of_difference(x: Tensor | None, y: Tensor | None, number: int) -> list[Signed]:
        if x is not None:
            return [(1, convolve(x if y is None else x - y, number))]
        return [] if y is None else [(-1, convolve(y, number))]

    made: list[Tensor] = []
    count = len(around) - TAPS + 1
    for t in range(0, count, 2):
        a, b, c, d = (*around[t : t + 4], None)[:4]
        assert b is not None
        middle, outer = convolve(b if c is None else b + c, 1), of_difference(c, b, 2)
        made.append(reduce(_added, [*outer, *of_difference(a, c, 0)], middle))
        if t + 1 < count:
            made.append(reduce(_added, [(-sign, value) for sign, value in [*outer, *of_difference(b, d, 3)]], middle))
    return made


def _added(total: Tensor, part: Signed) -> Tensor:
    sign, value = part
    return total + value if sign > 0 else total - value
