"""Formulas of pools and of interpolation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.targets.common import Pair, pair

aten = torch.ops.aten


def avg_pool2d(
    x: Tensor,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """An average pool of any setting: a depthwise convolution with ones, divided by the number that the pool divides by at each place."""
    if x.ndim == 3:
        return avg_pool2d(x.unsqueeze(0), kernel, stride, padding, ceil_mode, count_padding, divisor).squeeze(0)
    settings = pair(kernel), pair(stride or kernel), pair(padding), ceil_mode, count_padding, divisor
    sizes = x.shape[2:]
    averages = F.avg_pool2d(torch.ones(1, 1, *sizes), *settings)
    more = [
        max(0, (out - 1) * s + k - n - p) for out, s, k, n, p in zip(averages.shape[2:], settings[1], settings[0], sizes, settings[2], strict=True)
    ]
    amounts = (settings[2][1], more[1], settings[2][0], more[0])

    def sums(value: Tensor) -> Tensor:
        ones = torch.ones(value.shape[1], 1, *settings[0])
        return F.conv2d(F.pad(value, amounts) if any(amounts) else value, ones, None, settings[1], 0, 1, value.shape[1])

    return sums(x) * (averages / sums(torch.ones(1, 1, *sizes)))


def max_pool2d(x: Tensor, kernel: Pair, stride: Pair = (), padding: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False) -> Tensor:
    """A max pool without a batch axis."""
    batch: Tensor = aten.max_pool2d.default(x.unsqueeze(0), pair(kernel), pair(stride or kernel), pair(padding), pair(dilation), ceil_mode)
    return batch.squeeze(0)


def resize(operator: Any) -> Callable[..., Tensor]:
    """Return the formula of an interpolation, which is linear: a matrix product along rows, and one along columns."""

    def formula(x: Tensor, sizes: Any, align_corners: bool, scales: Sequence[float] | None = None) -> Tensor:
        return _resized(x, lambda image: operator(image, sizes, align_corners, scales))

    return formula


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


def _resized(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a linear function of the last two axes, each by itself, as products with the matrices that are its results for unit vectors."""
    height, width = x.shape[-2:]
    rows = function(torch.eye(height)[None, :, :, None].expand(1, height, height, width))[0, :, :, 0]
    columns = function(torch.eye(width)[None, :, None, :].expand(1, width, height, width))[0, :, 0, :]
    return rows.t() @ (x @ columns)


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.avg_pool2d.default: avg_pool2d,
    aten.max_pool2d.default: max_pool2d,
    aten.upsample_bilinear2d.vec: resize(aten.upsample_bilinear2d.vec),
    aten.upsample_nearest2d.vec: resize_to_nearest(aten.upsample_nearest2d.vec),
}
