"""Rules for sums, means, maxima, running sums and softmax, over any axes."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.elementwise import to
from clipstep.export.lowering.rules.movement import FRAME_AXIS, reshape
from clipstep.export.lowering.values import TIME, Frames, Value, is_batched, rowwise, to_frames, to_lazy, unwrap_low_rank

aten = torch.ops.aten
Dims = int | Sequence[int] | None
Function = Callable[..., Tensor]


def reduction(function: Function, combine: Function, *, mean: bool = False) -> Callable[..., Value | Tensor]:
    """Return the rule of a reduction.

    `Frames` are reduced over time by `combine`, a function of two frames, and within each frame by `function`. Any other value is
    reduced by `function` along the rows of a matrix.
    """

    def rule(profile: EngineProfile, x: Value, dims: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Value | Tensor:
        x = _converted(profile, x, dtype, function is torch.sum)
        axes = _axes(x, dims)
        if is_batched(x) and 1 not in axes:
            x = to_frames(x)
        shape = [1 if d in axes else size for d, size in enumerate(x.shape)]
        if not isinstance(x, Frames):
            kept = [d for d in range(len(x.shape)) if d not in axes]
            rows = x.permute([*kept, *axes]).tensor((math.prod(x.shape[d] for d in kept), math.prod(x.shape[d] for d in axes)))
            reduced: Value | Tensor = LazyPermutation.of(function(rows, 1), shape)
        else:
            frames = [reduce(combine, x.tensors)] if TIME in axes else list(x.tensors)
            within = [FRAME_AXIS[d] for d in axes if d in FRAME_AXIS]
            frames = [function(frame, within, keepdim=True) for frame in frames] if within else frames
            reduced = to_frames([frame * (1.0 / len(x.items)) for frame in frames] if mean and TIME in axes and len(x.items) > 1 else frames)
        return reduced if keepdim else reshape(profile, reduced, [size for d, size in enumerate(x.shape) if d not in axes])

    return rule


def cumulative_sum(profile: EngineProfile, x: Value, dim: int, **_: Any) -> Value | Tensor:
    """Compute a running sum. Along time, `Frames` are added one after the other."""
    dim %= len(x.shape)
    if isinstance(x, Frames) and dim == TIME:
        return to_frames(list(accumulate(x.tensors, torch.add)))
    return rowwise(lambda rows: rows[0].cumsum(1), [to_lazy(x)], dim)


def softmax(profile: EngineProfile, x: Value, dim: int, *_: Any) -> Value | Tensor:
    """Compute a softmax along the rows of a matrix: engines have kernels for that."""
    dim %= len(x.shape)
    axes = [*(d for d in range(len(x.shape)) if d != dim), dim]
    moved = to_lazy(x).permute(axes)
    rows = moved.tensor((math.prod(moved.shape[:-1]), moved.shape[-1]))
    back = [axes.index(d) for d in range(len(axes))]
    return unwrap_low_rank(LazyPermutation.of(rows.softmax(1), moved.shape).permute(back))


def _converted(profile: EngineProfile, x: Value, dtype: torch.dtype | None, is_sum: bool) -> Value:
    """Convert a value to the type in which it is reduced: that asked for, and int64 for a sum of integers or booleans."""
    given = (x.tensors[0] if isinstance(x, Frames) else to_lazy(x).data).dtype
    wanted = dtype or (torch.int64 if is_sum and not given.is_floating_point else given)
    return x if wanted == given else to(profile, x, wanted)


def _axes(x: Value, dims: Dims) -> list[int]:
    rank = len(x.shape)
    if dims is None or dims == []:
        return list(range(rank))
    return sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)})


mean, total = reduction(torch.mean, torch.add, mean=True), reduction(torch.sum, torch.add)
largest, smallest = reduction(torch.amax, torch.maximum), reduction(torch.amin, torch.minimum)

RULES: dict[Any, Callable[..., Any]] = {
    aten.mean.dim: mean,
    aten.sum.dim_IntList: total,
    aten.amax.default: largest,
    aten.amin.default: smallest,
    aten.cumsum.default: cumulative_sum,
    aten.softmax.int: softmax,
}
