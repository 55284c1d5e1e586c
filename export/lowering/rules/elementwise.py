"""Rules for elementwise operations, with broadcasting."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipstep.export.compat.torch_internals import tree_flatten, tree_unflatten
from clipstep.export.lowering.lazy import RANK, LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.formulas import formula_of
from clipstep.export.lowering.values import (
    Frames,
    Value,
    expand,
    fits_one_batch,
    from_batch,
    from_channel_major,
    is_batched,
    keeps_channel_major,
    to_batch,
    to_channel_major,
    to_frames,
    to_lazy,
    unwrap_low_rank,
)

aten = torch.ops.aten
Operand = Value | Tensor | float


def unary(function: Callable[..., Tensor], *, zero_preserving: bool = False) -> Callable[..., Value]:
    """Return the rule of a unary function; `zero_preserving` says that f(0) = 0, so that frames of zeros stay None."""

    def rule(profile: EngineProfile, x: Value, *args: Any, **kwargs: Any) -> Value:
        if isinstance(x, LazyPermutation):
            return x.with_data(function(x.data, *args, **kwargs))
        return (x.map_zero_preserving if zero_preserving else x.map)(lambda frame: function(frame, *args, **kwargs))

    return rule


def pointwise(function: Callable[..., Tensor]) -> Callable[..., Value | Tensor]:
    """Return the rule of a pointwise function of any number of tensors, which broadcasts them.

    All frames are computed together if an operand is a batch or channel-major and all fit one batch; frame by frame if one operand is frames;
    otherwise on tensors of lower rank, in which neighbouring axes that broadcast alike are joined.
    """

    def rule(profile: EngineProfile, *args: Any, **kwargs: Any) -> Value | Tensor:
        leaves, spec = tree_flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Value) or (isinstance(leaf, Tensor) and leaf.ndim)]

        def call(*operands: Tensor) -> Tensor:
            filled = dict(enumerate(leaves)) | dict(zip(places, operands, strict=True))
            positional, named = tree_unflatten(list(filled.values()), spec)
            return function(*positional, **named)

        return _broadcast(profile, call, [leaves[i] for i in places])

    return rule


def _broadcast(profile: EngineProfile, function: Callable[..., Tensor], operands: list[Value | Tensor]) -> Value | Tensor:
    if not operands:
        return function()
    if len(operands) == 1:
        (x,) = operands
        return function(x) if isinstance(x, Tensor) and x.ndim <= RANK else unary(function)(profile, x if isinstance(x, Value) else to_lazy(x))
    ranked = [_rank5(value) for value in operands]
    if any(map(is_batched, operands)) and all(fits_one_batch(profile, value) for value in ranked):
        return from_batch(function(*map(to_batch, ranked)))
    if any(isinstance(value, Frames) for value in operands):
        if (
            len({type(value) for value in ranked}) > 1
            and len({tuple(value.shape) for value in ranked}) == 1
            and all(keeps_channel_major(profile, value) for value in ranked)
        ):
            return from_channel_major(function(*map(to_channel_major, ranked)), *ranked[0].shape[3:])
        if all(len(value.shape) == 5 and value.shape[0] == 1 for value in ranked):
            frames = [to_frames(value).tensors for value in ranked]
            count = max(map(len, frames))
            return to_frames([function(*one) for one in zip(*(items * (count // len(items)) for items in frames), strict=True)])
    return _on_joined_axes(function, [to_lazy(value) for value in operands])


def _rank5(value: Any) -> Value:
    if isinstance(value, Frames):
        return value
    lazy = to_lazy(value)
    return lazy.reshape((*[1] * (5 - len(lazy.shape)), *lazy.shape))


def _on_joined_axes(function: Callable[..., Tensor], values: list[LazyPermutation]) -> LazyPermutation | Tensor:
    """Call a function on tensors in which neighbouring axes that broadcast alike are joined; if more than four are left, on expanded ones."""
    first = values[0]
    if len({(value.factors, value.order, value.shape, tuple(value.data.shape)) for value in values}) == 1:
        return first.with_data(function(*(value.data for value in values)))
    rank = max(len(value.shape) for value in values)
    shapes = [(*[1] * (rank - len(value.shape)), *value.shape) for value in values]
    shape = np.broadcast_shapes(*shapes)
    joined: list[list[int]] = []
    before: tuple[bool, ...] | None = None
    for sizes, whole in zip(zip(*shapes, strict=True), shape, strict=True):
        kind = tuple(size == 1 for size in sizes)
        if whole == 1:
            continue
        if kind == before:
            joined[-1] = [one * size for one, size in zip(joined[-1], sizes, strict=True)]
        else:
            joined.append(list(sizes))
        before = kind
    if len(joined) > RANK:
        return _on_joined_axes(function, [to_lazy(expand(value, shape)) for value in values])
    data = function(*(value.tensor([sizes[i] for sizes in joined]) for i, value in enumerate(values)))
    return unwrap_low_rank(LazyPermutation.of(data, shape))


def to(profile: EngineProfile, x: Value | Tensor, dtype: torch.dtype | None = None, *_: Any, **__: Any) -> Any:
    """Convert to another type. Devices and formats of memory are left out."""
    if dtype is None:
        return x
    return x.to(dtype) if isinstance(x, Tensor) else unary(lambda a: a.to(dtype))(profile, x)


ZERO_PRESERVING_UNARY = (
    aten.relu.default,
    aten.relu6.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.selu.default,
    aten.gelu.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.mish.default,
    aten.tanh.default,
    aten.neg.default,
    aten.abs.default,
)
"""Unary operators with f(0) = 0: frames of zeros stay None."""
RULES: dict[Any, Callable[..., Any]] = {
    **{operation: unary(formula_of(operation), zero_preserving=True) for operation in ZERO_PRESERVING_UNARY},
    aten._to_copy.default: to,
    aten.to.dtype: to,
    aten.to.device: lambda profile, x, _, dtype=None, *more, **named: to(profile, x, dtype),
    aten.to.dtype_layout: to,
}
