"""Writes operators that move elements as operations of ML Programs: slices, joins, permutations, paddings, repetitions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.common import check_padding
from clipstep.export.targets.coreml_values import (
    beyond,
    constant,
    expanded,
    kind,
    number,
    promoted,
    reshaped,
)

aten = torch.ops.aten
Function = Callable[..., Any]


def reshape(x: Any, *_: Any, after: Sequence[int]) -> Any:
    return mb.reshape(x=x, shape=list(after)) if after else reshaped(x, after)


def cat(values: Sequence[Any], dim: int = 0) -> Any:
    return mb.concat(values=promoted(*values), axis=dim)


def slice_tensor(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    first, last, _ = slice(start, end).indices(x.shape[dim])
    if last <= first:
        raise beyond("a value without elements")
    begins, ends, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    begins[dim], ends[dim], steps[dim] = first, last, step
    return mb.slice_by_index(x=x, begin=begins, end=ends, stride=steps)


def select(x: Any, dim: int, index: int, *, after: Sequence[int]) -> Any:
    return reshape(slice_tensor(x, dim, index % x.shape[dim], index % x.shape[dim] + 1), after=after)


def permute(x: Any, dims: Sequence[int]) -> Any:
    return mb.transpose(x=x, perm=list(dims)) if x.rank else x


def transpose(x: Any, first: int, second: int) -> Any:
    return permute(x, swapped_axes(x.rank, first, second))


def flip(x: Any, dims: Sequence[int]) -> Any:
    return mb.reverse(x=x, axes=[dim % x.rank for dim in dims])


def expand(x: Any, *_: Any, after: Sequence[int], **__: Any) -> Any:
    return expanded(x, after)


def pad(x: Any, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Pad the last axes by two amounts for each, the last axis first."""
    check_padding(mode)
    return constant_pad(x, amounts, value or 0.0)


def constant_pad(x: Any, amounts: Sequence[int], value: float = 0.0) -> Any:
    """Pad with a constant; negative amounts cut. Core ML pads floating-point values only, so others are joined with constants."""
    pairs = [(0, 0)] * (x.rank - len(amounts) // 2) + [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:
            x = slice_tensor(x, axis, max(0, -before), x.shape[axis] - max(0, -after))
    positive = [(max(0, before), max(0, after)) for before, after in pairs]
    if kind(x) == "fp32":
        if len(amounts) == 2 * x.rank and not any(map(any, positive)):
            return x
        kept = positive[x.rank - len(amounts) // 2 :]
        return mb.pad(x=x, pad=[amount for pair in kept for amount in pair], mode="constant", constant_val=number(value))
    for axis, pair in enumerate(positive):
        sides = [_filled([amount if d == axis else size for d, size in enumerate(x.shape)], value, kind(x)) if amount else None for amount in pair]
        x = cat([part for part in (sides[0], x, sides[1]) if part is not None], axis)
    return x


def _filled(shape: Sequence[int], value: float, name: str) -> Any:
    return constant(torch.full(tuple(shape), {"fp32": float, "int32": int, "bool": bool}[name](value)))


OPERATORS: dict[Any, Function] = {
    aten.cat.default: cat,
    aten.constant_pad_nd.default: constant_pad,
    aten.expand.default: expand,
    aten.flip.default: flip,
    aten.pad.default: pad,
    aten.permute.default: permute,
    aten.select.int: select,
    aten.slice.Tensor: slice_tensor,
    aten.transpose.int: transpose,
}
