"""Rules for interpolation over time, rows and columns.

Every mode is separable: along each axis it is a product with a constant matrix, which is read off PyTorch's own operator by interpolating the
identity. Engines have kernels for the rows and columns of frames only, and only where each axis grows by a whole factor do all of them agree on
the position of samples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import TIME, Frames, Value, rowwise, to_frames, to_lazy

aten = torch.ops.aten


def interpolation(operator: Any, mode: str | None) -> Callable[..., Value | Tensor]:
    """Return the rule of a 3D interpolation; `mode` is that of `F.interpolate` for the frames, None if engines have no kernel for it."""

    def rule(profile: EngineProfile, x: Value, sizes: Sequence[int] | None, *settings: Any) -> Value | Tensor:
        *align, factors = settings
        before = x.shape[TIME:]
        after = tuple(sizes) if sizes else tuple(int(size * factor) for size, factor in zip(before, factors, strict=True))
        matrices = [_matrix(operator, axis, before[axis], after[axis], align, None if sizes else factors[axis]) for axis in range(3)]
        value = _over_time(to_frames(x), matrices[0])
        if mode and all(new % old == 0 for old, new in zip(before[1:], after[1:], strict=True)):
            corners = {"align_corners": align[0]} if align else {}
            return value.map(lambda frame: F.interpolate(frame, size=after[1:], mode=mode, **corners))
        result: Value | Tensor = value
        for axis in (1, 2):
            if before[axis] != after[axis]:
                result = _product(to_lazy(result), TIME + axis, matrices[axis])
        return result

    return rule


def interpolation_of_frames(operator: Any, mode: str | None, count: int) -> Callable[..., Value | Tensor]:
    """Return the rule of a 2D interpolation of `(N, C, H, W)`; `mode` as for `interpolation`.

    `count` is 1 if the operator can align corners, else 0.
    """

    def rule(profile: EngineProfile, x: Tensor, sizes: Sequence[int] | None, *settings: Any) -> Value | Tensor:
        align, factors = settings[:count], (*settings[count:], None)[0]
        before = x.shape[2:]
        after = tuple(sizes) if sizes else tuple(int(size * factor) for size, factor in zip(before, factors, strict=True))
        if mode and all(new % old == 0 for old, new in zip(before, after, strict=True)):
            corners = {"align_corners": align[0]} if align else {}
            return F.interpolate(x, size=after, mode=mode, **corners)
        result: Value | Tensor = x
        for axis in (0, 1):
            if before[axis] != after[axis]:
                matrix = _matrix(operator, axis, before[axis], after[axis], align, None if sizes else factors[axis], 2)
                result = _product(to_lazy(result), 2 + axis, matrix)
        return result

    return rule


def _matrix(operator: Any, axis: int, size: int, wanted: int, align: Sequence[bool], factor: float | None, count: int = 3) -> Tensor:
    """Return the matrix `(wanted, size)` of an interpolation along one axis: what the operator makes of the identity."""
    shape, sizes, factors = [1, size, *[1] * count], [1] * count, [1.0] * count
    shape[2 + axis], sizes[axis] = size, wanted
    where: list[Any] = [sizes, *align, None]
    if factor is not None:
        factors[axis] = factor
        where = [None, *align, factors]
    matrix: Tensor = operator(torch.eye(size).reshape(shape), *where).reshape(size, wanted).T
    return matrix


def _over_time(value: Frames, matrix: Tensor) -> Frames:
    """Each output frame is a sum of the few input frames that have a weight."""
    tensors = value.tensors

    def mixed(weights: list[float]) -> Tensor:
        parts = [tensors[t] if weight == 1 else tensors[t] * weight for t, weight in enumerate(weights) if weight]
        return sum(parts[1:], parts[0])

    return Frames(tuple(map(mixed, matrix.tolist())))


def _product(value: LazyPermutation, dim: int, matrix: Tensor) -> Value | Tensor:
    if dim == len(value.shape) - 1:
        return rowwise(lambda rows: (rows[0][:, :, 0] @ matrix.T)[:, :, None], [value], dim)
    return rowwise(lambda rows: matrix @ rows[0], [value], dim)


RULES: dict[Any, Callable[..., Any]] = {
    aten.upsample_nearest3d.vec: interpolation(aten.upsample_nearest3d.vec, "nearest"),
    aten._upsample_nearest_exact3d.vec: interpolation(aten._upsample_nearest_exact3d.vec, None),
    aten.upsample_nearest2d.vec: interpolation_of_frames(aten.upsample_nearest2d.vec, "nearest", 0),
    aten._upsample_nearest_exact2d.vec: interpolation_of_frames(aten._upsample_nearest_exact2d.vec, None, 0),
    aten.upsample_bilinear2d.vec: interpolation_of_frames(aten.upsample_bilinear2d.vec, "bilinear", 1),
    aten.upsample_bicubic2d.vec: interpolation_of_frames(aten.upsample_bicubic2d.vec, None, 1),
    aten.upsample_trilinear3d.vec: interpolation(aten.upsample_trilinear3d.vec, "bilinear"),
}
