"""Formulas of pools and of interpolation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.targets.common import Pair, check_average, pair

aten = torch.ops.aten


def avg_pool2d(
    x: Tensor, kernel: Pair, stride: Pair = (), padding: Pair = 0, ceil_mode: bool = False, count_padding: bool = True, divisor: int | None = None
) -> Tensor:
    """An average pool with a padding: a depthwise convolution with ones, divided by the number that the pool divides by at each place."""
    check_average(ceil_mode, divisor)
    kernels, strides, pads = pair(kernel), pair(stride or kernel), pair(padding)
    sizes = x.shape[2:]
    averages = F.avg_pool2d(torch.ones(1, 1, *sizes), kernels, strides, pads, False, count_padding)

    def sums(value: Tensor) -> Tensor:
        return F.conv2d(value, torch.ones(value.shape[1], 1, *kernels), None, strides, pads, 1, value.shape[1])

    return sums(x) * (averages / sums(torch.ones(1, 1, *sizes)))


def resize_to_nearest(operator: Any) -> Callable[..., Tensor]:
    """Return the formula of an interpolation that selects entries."""

    def formula(x: Tensor, sizes: Any, scales: Sequence[float] | None = None) -> Tensor:
        spatial = x.shape[2:]
        for axis, length in enumerate(spatial):
            entries = torch.arange(length, dtype=torch.float32).reshape([length if i == axis else 1 for i in range(len(spatial))]).expand(spatial)
            chosen = operator(entries[None, None], sizes, scales)[0, 0].movedim(axis, 0)
            x = x.index_select(2 + axis, chosen.reshape(len(chosen), -1)[:, 0].to(torch.int64))
        return x

    return formula


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.avg_pool2d.default: avg_pool2d,
    aten.upsample_nearest2d.vec: resize_to_nearest(aten.upsample_nearest2d.vec),
}
