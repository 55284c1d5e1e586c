"""Operations on each element, or on pairs of elements that broadcast."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import (
    Frames,
    NoRule,
    Value,
    frames_of,
    in_planes,
    is_stack,
    planes,
    planes_of,
    result,
    small,
    stack_of,
    stacked,
    view_of,
)
from clipstep.export.lowering.view import View

aten = torch.ops.aten
Operand = Value | Tensor | float


def unary(function: Callable[..., Tensor], *, zero: bool = False) -> Callable[..., Value]:
    """``zero``: it takes zero to zero, so that frames of zeros stay what they are."""

    def rule(x: Value, *args: Any, **kwargs: Any) -> Value:
        if isinstance(x, View):
            return x.map(function(x.data, *args, **kwargs))
        return (x.map if zero else x.each)(lambda frame: function(frame, *args, **kwargs))

    return rule


def binary(function: Callable[..., Tensor]) -> Callable[..., Value | Tensor]:
    """All frames at once if one of the operands is a small stack or in planes, frame by frame if one is frames; otherwise on views,
    whose neighbouring axes are joined."""

    def rule(x: Operand, y: Operand, *args: Any, **kwargs: Any) -> Value | Tensor:
        if isinstance(x, float | int) or isinstance(y, float | int) or _single(x) or _single(y):
            return _with_number(lambda a, b: function(a, b, *args, **kwargs), x, y)
        if is_stack(x) or is_stack(y):
            one, other = _rank5(x), _rank5(y)
            if small(one) and small(other):
                return stacked(function(stack_of(one), stack_of(other), *args, **kwargs))
        if isinstance(x, Frames) or isinstance(y, Frames):
            one, other = _rank5(x), _rank5(y)
            if type(one) is not type(other) and one.shape == other.shape and in_planes(one) and in_planes(other):
                return planes(function(planes_of(one), planes_of(other), *args, **kwargs), *one.shape[3:])
            a, b = (frames_of(value).exact for value in (one, other))
            count = max(len(a), len(b))
            pairs = zip(a * (count // len(a)), b * (count // len(b)), strict=True)
            return frames_of([function(one, other, *args, **kwargs) for one, other in pairs])
        return _broadcast(lambda a, b: function(a, b, *args, **kwargs), view_of(x), view_of(y))

    return rule


def _single(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _with_number(function: Callable[[Any, Any], Tensor], x: Any, y: Any) -> Value | Tensor:
    if isinstance(x, Value):
        return unary(lambda data: function(data, y))(x)
    return unary(lambda data: function(x, data))(y) if isinstance(y, Value) else function(x, y)


def _rank5(value: Any) -> Value:
    if isinstance(value, Frames):
        return value
    view = view_of(value)
    return view.reshape((*[1] * (5 - len(view.shape)), *view.shape))


def _broadcast(function: Callable[[Tensor, Tensor], Tensor], x: View, y: View) -> View | Tensor:
    if (x.factors, x.order, x.shape, x.data.shape) == (y.factors, y.order, y.shape, y.data.shape):
        return x.map(function(x.data, y.data))
    rank = max(len(x.shape), len(y.shape))
    a, b = ((*[1] * (rank - len(view.shape)), *view.shape) for view in (x, y))
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
        raise NoRule(f"broadcasting {x.shape} with {y.shape}")
    data = function(*(view.tensor([pair[i] for pair in joined]) for i, view in enumerate((x, y))))
    return result(View.of(data, shape))


def power(x: Value, exponent: float) -> Value:
    """A square as a product, which engines have kernels for."""
    square: Callable[..., Value] = unary((lambda a: a * a) if exponent == 2 else lambda a: torch.pow(a, exponent))
    return square(x)


def to(x: Value, *args: Any, **kwargs: Any) -> Value:
    return unary(lambda a: a.to(*args, **kwargs))(x)


ZERO_STAYS: dict[Any, Callable[..., Tensor]] = {
    aten.relu.default: F.relu, aten.relu6.default: F.relu6, aten.leaky_relu.default: F.leaky_relu, aten.elu.default: F.elu,
    aten.selu.default: F.selu, aten.gelu.default: F.gelu, aten.silu.default: F.silu, aten.hardswish.default: F.hardswish, aten.mish.default: F.mish,
    aten.tanh.default: torch.tanh, aten.neg.default: torch.neg, aten.abs.default: torch.abs,
}  # fmt: skip
OTHERS: dict[Any, Callable[..., Tensor]] = {
    aten.sigmoid.default: torch.sigmoid, aten.hardsigmoid.default: F.hardsigmoid, aten.hardtanh.default: F.hardtanh,
    aten.softplus.default: F.softplus, aten.clamp.default: torch.clamp, aten.clamp_min.default: torch.clamp_min,
    aten.clamp_max.default: torch.clamp_max,
    aten.exp.default: torch.exp, aten.log.default: torch.log, aten.sqrt.default: torch.sqrt, aten.rsqrt.default: torch.rsqrt,
    aten.reciprocal.default: torch.reciprocal,
}  # fmt: skip
PAIRS: dict[Any, Callable[..., Tensor]] = {
    aten.add.Tensor: torch.add, aten.add.Scalar: torch.add, aten.sub.Tensor: torch.sub, aten.sub.Scalar: torch.sub,
    aten.mul.Tensor: torch.mul, aten.mul.Scalar: torch.mul, aten.div.Tensor: torch.div, aten.div.Scalar: torch.div,
    aten.maximum.default: torch.maximum, aten.minimum.default: torch.minimum,
    aten.rsub.Scalar: lambda x, y: y - x,
}  # fmt: skip

RULES: dict[Any, Callable[..., Any]] = {
    **{operation: unary(function, zero=True) for operation, function in ZERO_STAYS.items()},
    **{operation: unary(function) for operation, function in OTHERS.items()},
    **{operation: binary(function) for operation, function in PAIRS.items()},
    aten.pow.Tensor_Scalar: power,
    aten.square.default: lambda x: power(x, 2),
    aten._to_copy.default: to,
    aten.to.dtype: to,
}
