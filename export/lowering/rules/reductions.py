"""Sums, means, maxima, variances, running sums and softmax, over any axes."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from clipstep.export.lowering.frames import TIME, Frames, Value, frames_of, is_stack, result, view_of
from clipstep.export.lowering.rules.movement import FRAME_AXIS, reshape, rowwise
from clipstep.export.lowering.rules.pointwise import binary
from clipstep.export.lowering.view import View

aten = torch.ops.aten
Dims = int | Sequence[int] | None
Function = Callable[..., Tensor]


def reduction(function: Function, combine: Function, *, mean: bool = False) -> Callable[..., Value | Tensor]:
    """Of frames over time by ``combine`` and within each by ``function``; of other values by ``function`` on rows."""

    def rule(x: Value, dims: Dims = None, keepdim: bool = False, **_: Any) -> Value | Tensor:
        axes = _axes(x, dims)
        if is_stack(x) and 1 not in axes:
            x = frames_of(x)
        shape = [1 if d in axes else size for d, size in enumerate(x.shape)]
        if not isinstance(x, Frames):
            kept = [d for d in range(len(x.shape)) if d not in axes]
            rows = x.permute([*kept, *axes]).tensor((math.prod(x.shape[d] for d in kept), math.prod(x.shape[d] for d in axes)))
            reduced: Value | Tensor = View.of(function(rows, 1), shape)
        else:
            frames = [reduce(combine, x.exact)] if TIME in axes else list(x.exact)
            within = [FRAME_AXIS[d] for d in axes if d in FRAME_AXIS]
            frames = [function(frame, within, keepdim=True) for frame in frames] if within else frames
            reduced = frames_of([frame * (1.0 / len(x.items)) for frame in frames] if mean and TIME in axes and len(x.items) > 1 else frames)
        return reduced if keepdim else reshape(reduced, [size for d, size in enumerate(x.shape) if d not in axes])

    return rule


mean = reduction(torch.mean, torch.add, mean=True)
subtract, multiply = binary(torch.sub), binary(torch.mul)


def variance(x: Value, dims: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None) -> Value | Tensor:
    """The mean square of what is left without the mean."""
    less = float(unbiased) if correction is None else correction
    count = math.prod(x.shape[d] for d in _axes(x, dims))
    apart = subtract(x, mean(x, dims, True))
    return multiply(mean(multiply(apart, apart), dims, keepdim), count / (count - less))


def cumulative_sum(x: Value, dim: int, **_: Any) -> Value | Tensor:
    """Along time frame after frame."""
    dim %= len(x.shape)
    if isinstance(x, Frames) and dim == TIME:
        return frames_of(list(accumulate(x.exact, torch.add)))
    return rowwise(lambda rows: rows[0].cumsum(1), [view_of(x)], dim)


def softmax(x: Value, dim: int, *_: Any) -> Value | Tensor:
    """Last on rows, for which engines have kernels."""
    dim %= len(x.shape)
    axes = [*(d for d in range(len(x.shape)) if d != dim), dim]
    moved = view_of(x).permute(axes)
    rows = moved.tensor((math.prod(moved.shape[:-1]), moved.shape[-1]))
    back = [axes.index(d) for d in range(len(axes))]
    return result(View.of(rows.softmax(1), moved.shape).permute(back))


def _axes(x: Value, dims: Dims) -> list[int]:
    rank = len(x.shape)
    if dims is None or dims == []:
        return list(range(rank))
    return sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)})


total, largest, smallest = reduction(torch.sum, torch.add), reduction(torch.amax, torch.maximum), reduction(torch.amin, torch.minimum)

RULES: dict[Any, Callable[..., Any]] = {
    aten.mean.dim: mean,
    aten.mean.default: mean,
    aten.sum.dim_IntList: total,
    aten.sum.default: total,
    aten.amax.default: largest,
    aten.amin.default: smallest,
    aten.var.correction: lambda x, dims=None, *, correction=1, keepdim=False: variance(x, dims, keepdim=keepdim, correction=correction),
    aten.var.dim: variance,
    aten.cumsum.default: cumulative_sum,
    aten.softmax.int: softmax,
    aten._softmax.default: softmax,
}
