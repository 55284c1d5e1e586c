"""Rules for elementwise operations: unary, and binary with broadcasting."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import (
    Frames,
    Value,
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
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Operand = Value | Tensor | float


def unary(function: Callable[..., Tensor], *, zero_preserving: bool = False) -> Callable[..., Value]:
    """Return the rule of a unary function; `zero_preserving` says that f(0) = 0, so that frames of zeros stay None."""

    def rule(profile: EngineProfile, x: Value, *args: Any, **kwargs: Any) -> Value:
        if isinstance(x, LazyPermutation):
            return x.with_data(function(x.data, *args, **kwargs))
        return (x.map_zero_preserving if zero_preserving else x.map)(lambda frame: function(frame, *args, **kwargs))

    return rule


def binary(function: Callable[..., Tensor]) -> Callable[..., Value | Tensor]:
    """Return the rule of a binary function that broadcasts.

    All frames are computed together if one operand is a batch or channel-major and both fit one batch. Otherwise, if one operand is `Frames`, the
    function is computed frame by frame. All other operands become tensors of lower rank, in which neighbouring axes that broadcast alike are joined.
    """

    def rule(profile: EngineProfile, x: Operand, y: Operand, *args: Any, **kwargs: Any) -> Value | Tensor:
        if isinstance(x, float | int) or isinstance(y, float | int) or _is_scalar(x) or _is_scalar(y):
            return _with_scalar(profile, lambda a, b: function(a, b, *args, **kwargs), x, y)
        if is_batched(x) or is_batched(y):
            one, other = _rank5(x), _rank5(y)
            if fits_one_batch(profile, one) and fits_one_batch(profile, other):
                return from_batch(function(to_batch(one), to_batch(other), *args, **kwargs))
        if isinstance(x, Frames) or isinstance(y, Frames):
            one, other = _rank5(x), _rank5(y)
            if (
                type(one) is not type(other)
                and one.shape == other.shape
                and keeps_channel_major(profile, one)
                and keeps_channel_major(profile, other)
            ):
                return from_channel_major(function(to_channel_major(one), to_channel_major(other), *args, **kwargs), *one.shape[3:])
            a, b = (to_frames(value).tensors for value in (one, other))
            count = max(len(a), len(b))
            pairs = zip(a * (count // len(a)), b * (count // len(b)), strict=True)
            return to_frames([function(one, other, *args, **kwargs) for one, other in pairs])
        return _broadcast(lambda a, b: function(a, b, *args, **kwargs), to_lazy(x), to_lazy(y))

    return rule


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _with_scalar(profile: EngineProfile, function: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Value | Tensor:
    if isinstance(x, Value):
        return unary(lambda data: function(data, y))(profile, x)
    return unary(lambda data: function(x, data))(profile, y) if isinstance(y, Value) else function(x, y)


def _rank5(value: Any) -> Value:
    if isinstance(value, Frames):
        return value
    lazy = to_lazy(value)
    return lazy.reshape((*[1] * (5 - len(lazy.shape)), *lazy.shape))


def _broadcast(function: Callable[[Tensor, Tensor], Tensor], x: LazyPermutation, y: LazyPermutation) -> LazyPermutation | Tensor:
    if (x.factors, x.order, x.shape, x.data.shape) == (y.factors, y.order, y.shape, y.data.shape):
        return x.with_data(function(x.data, y.data))
    rank = max(len(x.shape), len(y.shape))
    a, b = ((*[1] * (rank - len(value.shape)), *value.shape) for value in (x, y))
    shape = tuple(max(pair) for pair in zip(a, b, strict=True))
    joined: list[list[int]] = []
    before: tuple[bool, bool] | None = None
    for one, other in zip(a, b, strict=True):
        kind = (one == 1, other == 1)
        if kind == (True, True):
            continue
        if kind == before:
            joined[-1] = [joined[-1][0] * one, joined[-1][1] * other]
        else:
            joined.append([one, other])
        before = kind
    if len(joined) > 4:
        raise Unsupported(f"broadcasting {x.shape} with {y.shape}")
    data = function(*(value.tensor([pair[i] for pair in joined]) for i, value in enumerate((x, y))))
    return unwrap_low_rank(LazyPermutation.of(data, shape))


def power(profile: EngineProfile, x: Value, exponent: float) -> Value:
    """Compute a power. A square is computed as a product, for which all engines have kernels."""
    square: Callable[..., Value] = unary((lambda a: a * a) if exponent == 2 else lambda a: torch.pow(a, exponent))
    return square(profile, x)


def to(profile: EngineProfile, x: Value, *args: Any, **kwargs: Any) -> Value:
    return unary(lambda a: a.to(*args, **kwargs))(profile, x)


ZERO_PRESERVING_UNARY: dict[Any, Callable[..., Tensor]] = {
    aten.relu.default: F.relu,
    aten.relu6.default: F.relu6,
    aten.leaky_relu.default: F.leaky_relu,
    aten.elu.default: F.elu,
    aten.selu.default: F.selu,
    aten.gelu.default: F.gelu,
    aten.silu.default: F.silu,
    aten.hardswish.default: F.hardswish,
    aten.mish.default: F.mish,
    aten.tanh.default: torch.tanh,
    aten.neg.default: torch.neg,
    aten.abs.default: torch.abs,
}
UNARY: dict[Any, Callable[..., Tensor]] = {
    aten.sigmoid.default: torch.sigmoid,
    aten.hardsigmoid.default: F.hardsigmoid,
    aten.hardtanh.default: F.hardtanh,
    aten.softplus.default: F.softplus,
    aten.clamp.default: torch.clamp,
    aten.clamp_min.default: torch.clamp_min,
    aten.clamp_max.default: torch.clamp_max,
    aten.exp.default: torch.exp,
    aten.log.default: torch.log,
    aten.sqrt.default: torch.sqrt,
    aten.rsqrt.default: torch.rsqrt,
    aten.reciprocal.default: torch.reciprocal,
}
BINARY: dict[Any, Callable[..., Tensor]] = {
    aten.add.Tensor: torch.add,
    aten.add.Scalar: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.sub.Scalar: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.mul.Scalar: torch.mul,
    aten.div.Tensor: torch.div,
    aten.div.Scalar: torch.div,
    aten.maximum.default: torch.maximum,
    aten.minimum.default: torch.minimum,
    aten.rsub.Scalar: lambda x, y: y - x,
}

RULES: dict[Any, Callable[..., Any]] = {
    **{operation: unary(function, zero_preserving=True) for operation, function in ZERO_PRESERVING_UNARY.items()},
    **{operation: unary(function) for operation, function in UNARY.items()},
    **{operation: binary(function) for operation, function in BINARY.items()},
    aten.pow.Tensor_Scalar: power,
    aten.square.default: lambda profile, x: power(profile, x, 2),
    aten._to_copy.default: to,
    aten.to.dtype: to,
}
