"""Writes elementwise operators as operations of ML Programs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.targets.common import clamp_bounds
from clipstep.export.targets.coreml_values import arithmetic, cast, choose, kind, kind_of_type, number, promoted, shape_of
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Function = Callable[..., Any]


def unary(operation: Function, **settings: Any) -> Function:
    """Return a function that writes an operator of one floating-point operand as an operation of Core ML."""
    return lambda x: operation(x=cast(x, "fp32"), **settings)


def binary(operation: Function, *, floating: bool = False) -> Function:
    """Return a function that writes an operator of two operands, converted to one type of numbers; with `floating`, to float32."""

    def write(x: Any, y: Any) -> Any:
        a, b = promoted(x, y, floating=True) if floating else arithmetic(x, y)
        return operation(x=a, y=b)

    return write


def of(operation: Function, x: Any, y: Any) -> Any:
    """Write an operation of two float32 operands."""
    return operation(x=number(x), y=number(y))


def hard_sigmoid(x: Any) -> Any:
    return mb.sigmoid_hard(x=x, alpha=np.float32(1 / 6), beta=np.float32(0.5))


def power(x: Any, exponent: float) -> Any:
    """Write a power of a constant exponent; small whole ones as products, which are exact and take negative numbers."""
    if exponent == 2:
        return mb.mul(x=x, y=x)
    x = x if kind(x) == "fp32" or isinstance(exponent, int) else cast(x, "fp32")
    if exponent in (1, 3, 4):
        square = mb.mul(x=x, y=x) if exponent > 1 else None
        return x if square is None else mb.mul(x=square, y=square if exponent == 4 else x)
    if exponent == 0.5:
        return mb.sqrt(x=x)
    if exponent == -1:
        return of(mb.real_div, 1.0, cast(x, "fp32"))
    a, b = arithmetic(x, exponent)
    return mb.pow(x=a, y=b)


def clamp(x: Any, low: float | None = None, high: float | None = None, **named: float) -> Any:
    low, high = clamp_bounds(low, high, **named)
    if kind(x) != "fp32":
        x = x if low is None else binary(mb.maximum)(x, low)
        return x if high is None else binary(mb.minimum)(x, high)
    if high is None:
        return mb.relu(x=x) if low == 0 else of(mb.maximum, x, low)
    if low is None or low >= high:
        return of(mb.minimum, x if low is None else of(mb.maximum, x, low), high)
    return mb.clip(x=x, alpha=number(low), beta=number(high))


def whole(operation: Function) -> Function:
    """Return a function that writes a rounding; integers are left as they are."""
    return lambda x: operation(x=x) if kind(x) == "fp32" else x


def divided(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    """Write a division; only those of integers are rounded."""
    if rounding_mode is None:
        return binary(mb.real_div, floating=True)(x, y)
    a, b = arithmetic(x, y)
    if rounding_mode == "floor":
        return mb.floor_div(x=a, y=b)
    return mb.mul(x=mb.mul(x=_sign(a), y=_sign(b)), y=mb.floor_div(x=_size(a), y=_size(b)))


def _size(x: Any) -> Any:
    return np.abs(x) if isinstance(x, np.generic) else mb.abs(x=x)


def _sign(x: Any) -> Any:
    return np.sign(x) if isinstance(x, np.generic) else mb.sign(x=x)


def fmod(x: Any, y: Any) -> Any:
    """Write the remainder that has the sign of the dividend."""
    a, b = arithmetic(x, y)
    return mb.mul(x=_sign(a), y=mb.mod(x=_size(a), y=_size(b)))


def logical(operation: Function) -> Function:
    return lambda *values: operation(**{name: cast(value, "bool") for name, value in zip("xy", values, strict=False)})


def bitwise(name: str) -> Function:
    """Return a function that writes a bitwise operator: of booleans as logic, of integers and a constant by the bits of the constant."""
    logic = {"and": mb.logical_and, "or": mb.logical_or, "xor": mb.logical_xor}[name]

    def write(x: Any, y: Any) -> Any:
        if kind(x) == kind(y) == "bool":
            return logic(x=cast(x, "bool"), y=cast(y, "bool"))
        if isinstance(x, int):
            x, y = y, x
        if not isinstance(y, int) and y.val is not None and not shape_of(y):
            y = int(y.val)
        if not isinstance(y, int):
            raise Unsupported("two integers that are computed")
        common = _shared_bits(cast(x, "int32"), y)
        if name == "and":
            return common
        total = mb.add(x=cast(x, "int32"), y=np.int32(y))
        return mb.sub(x=total, y=common if name == "or" else mb.mul(x=common, y=np.int32(2)))

    return write


def _shared_bits(x: Any, mask: int) -> Any:
    """Write `x & mask`: the sum of the bits of x that the mask has; a negative mask by its complement."""
    if mask < 0:
        return mb.sub(x=x, y=_shared_bits(x, ~mask))
    total = mb.mul(x=x, y=np.int32(0))
    for bit in range(mask.bit_length()):
        if mask >> bit & 1:
            part = mb.mod(x=mb.floor_div(x=x, y=np.int32(1 << bit)), y=np.int32(2))
            total = mb.add(x=total, y=mb.mul(x=part, y=np.int32(1 << bit)))
    return total


def bitwise_not(x: Any) -> Any:
    return mb.logical_not(x=x) if kind(x) == "bool" else mb.sub(x=np.int32(-1), y=x)


def where(condition: Any, x: Any, y: Any, *, after: Sequence[int]) -> Any:
    return choose(condition, x, y, after)


def to_type(x: Any, dtype: torch.dtype | None = None, *_: Any, **__: Any) -> Any:
    """Write a conversion. float64 is float32, int64 is int32; a conversion to float16 rounds."""
    if dtype is None:
        return x
    value = cast(x, kind_of_type(dtype))
    return mb.cast(x=mb.cast(x=value, dtype="fp16"), dtype="fp32") if dtype == torch.float16 else value


def negated(x: Any) -> Any:
    return mb.mul(x=x, y=np.float32(-1) if kind(x) == "fp32" else np.int32(-1))


COMPARISONS = {"eq": mb.equal, "ne": mb.not_equal, "lt": mb.less, "le": mb.less_equal, "gt": mb.greater, "ge": mb.greater_equal}
OPERATORS: dict[Any, Function] = {
    aten.abs.default: lambda x: mb.abs(x=x),
    aten.acos.default: unary(mb.acos),
    aten.add.Tensor: binary(mb.add),
    aten.asin.default: unary(mb.asin),
    aten.atan.default: unary(mb.atan),
    aten.atanh.default: unary(mb.atanh),
    aten.bitwise_and.Scalar: bitwise("and"),
    aten.bitwise_and.Tensor: bitwise("and"),
    aten.bitwise_not.default: bitwise_not,
    aten.bitwise_or.Scalar: bitwise("or"),
    aten.bitwise_or.Tensor: bitwise("or"),
    aten.bitwise_xor.Scalar: bitwise("xor"),
    aten.bitwise_xor.Tensor: bitwise("xor"),
    aten.ceil.default: whole(mb.ceil),
    aten.clamp.default: clamp,
    aten.cos.default: unary(mb.cos),
    aten.cosh.default: unary(mb.cosh),
    aten.div.Tensor: divided,
    aten.div.Tensor_mode: divided,
    aten.elu.default: lambda x, alpha=1.0: mb.elu(x=x, alpha=np.float32(alpha)),
    aten.erf.default: unary(mb.erf),
    aten.exp.default: unary(mb.exp),
    aten.floor.default: whole(mb.floor),
    aten.fmod.Scalar: fmod,
    aten.fmod.Tensor: fmod,
    aten.gelu.default: lambda x, approximate="none": mb.gelu(x=x, mode="EXACT" if approximate == "none" else "TANH_APPROXIMATION"),
    aten.hardsigmoid.default: hard_sigmoid,
    aten.hardswish.default: lambda x: mb.mul(x=x, y=hard_sigmoid(x)),
    aten.hardtanh.default: lambda x, low=-1.0, high=1.0: clamp(x, low, high),
    aten.leaky_relu.default: lambda x, slope=0.01: mb.leaky_relu(x=x, alpha=np.float32(slope)),
    aten.log.default: unary(mb.log, epsilon=np.float32(0)),
    aten.logical_and.default: logical(mb.logical_and),
    aten.logical_not.default: logical(mb.logical_not),
    aten.logical_or.default: logical(mb.logical_or),
    aten.maximum.default: binary(mb.maximum),
    aten.minimum.default: binary(mb.minimum),
    aten.mul.Tensor: binary(mb.mul),
    aten.neg.default: negated,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: binary(mb.pow),
    aten.reciprocal.default: lambda x: of(mb.real_div, 1.0, cast(x, "fp32")),
    aten.relu.default: lambda x: mb.relu(x=x) if kind(x) == "fp32" else mb.maximum(x=x, y=np.int32(0)),
    aten.relu6.default: unary(mb.relu6),
    aten.remainder.Scalar: binary(mb.mod),
    aten.remainder.Tensor: binary(mb.mod),
    aten.round.default: whole(mb.round),
    aten.rsqrt.default: unary(mb.rsqrt, epsilon=np.float32(0)),
    aten.rsub.Scalar: lambda x, y: binary(mb.sub)(y, x),
    aten.sigmoid.default: unary(mb.sigmoid),
    aten.sign.default: lambda x: mb.sign(x=x),
    aten.silu.default: unary(mb.silu),
    aten.sin.default: unary(mb.sin),
    aten.sinh.default: unary(mb.sinh),
    aten.sqrt.default: unary(mb.sqrt),
    aten.sub.Tensor: binary(mb.sub),
    aten.tan.default: unary(mb.tan),
    aten.tanh.default: unary(mb.tanh),
    aten.to.dtype: to_type,
    aten.where.self: where,
    **{getattr(getattr(aten, name), form): binary(operation) for name, operation in COMPARISONS.items() for form in ("Scalar", "Tensor")},
}
