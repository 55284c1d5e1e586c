"""Writes elementwise operators as operations of ML Programs.

Formulas stand in for those that Core ML lacks. They are chosen so that no digits cancel near 0 and nothing overflows float16 on the way.
"""

import math
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


def formula(function: Function) -> Function:
    """Return a function that writes an operator of floating-point operands as a formula."""
    return lambda *values: function(*(cast(value, "fp32") for value in values))


def binary(operation: Function, *, floating: bool = False) -> Function:
    """Return a function that writes an operator of two operands, converted to one type of numbers; with `floating`, to float32."""

    def write(x: Any, y: Any) -> Any:
        a, b = promoted(x, y, floating=True) if floating else arithmetic(x, y)
        return operation(x=a, y=b)

    return write


def scaled(operation: Function) -> Function:
    """Return a function that writes a sum or difference, whose second operand may be multiplied by `alpha`."""

    def write(x: Any, y: Any, alpha: float = 1) -> Any:
        a, b = arithmetic(x, y if alpha == 1 else multiply(y, alpha))
        return operation(x=a, y=b)

    return write


def reversed_difference(x: Any, y: Any, alpha: float = 1) -> Any:
    """Write `y - alpha * x`."""
    return scaled(mb.sub)(y, x, alpha)


def multiply(x: Any, y: Any) -> Any:
    a, b = arithmetic(x, y)
    return mb.mul(x=a, y=b)


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


def power_of(x: Any, y: Any) -> Any:
    if isinstance(x, int | float) and x == 2:
        return mb.exp2(x=cast(y, "fp32"))
    a, b = arithmetic(x, y)
    return mb.pow(x=a, y=b)


def clamp(x: Any, low: Any = None, high: Any = None, **named: Any) -> Any:
    low, high = clamp_bounds(low, high, **named)
    constants = all(value is None or isinstance(value, int | float) for value in (low, high))
    if kind(x) == "fp32" and constants:
        if high is None:
            return mb.relu(x=x) if low == 0 else mb.maximum(x=x, y=number(low))
        if low is None or low >= high:
            return mb.minimum(x=x if low is None else mb.maximum(x=x, y=number(low)), y=number(high))
        return mb.clip(x=x, alpha=number(low), beta=number(high))
    if low is not None:
        x = binary(mb.maximum)(x, low)
    return x if high is None else binary(mb.minimum)(x, high)


def truncated(x: Any) -> Any:
    return mb.mul(x=mb.sign(x=x), y=mb.floor(x=mb.abs(x=x)))


def whole(operation: Function) -> Function:
    """Return a function that writes a rounding; integers are left as they are."""
    return lambda x: operation(x=x) if kind(x) == "fp32" else x


def rounded(x: Any, *, decimals: int = 0) -> Any:
    if not decimals or kind(x) != "fp32":
        return whole(mb.round)(x)
    return of(mb.real_div, mb.round(x=of(mb.mul, x, 10.0**decimals)), 10.0**decimals)


def log1p(x: Any) -> Any:
    near = of(mb.mul, mb.atanh(x=of(mb.real_div, x, of(mb.add, x, 2.0))), 2.0)
    return choose(mb.less(x=mb.abs(x=x), y=number(0.5)), near, mb.log(x=of(mb.add, x, 1.0), epsilon=np.float32(0)), x.shape)


def expm1(x: Any) -> Any:
    half = mb.tanh(x=of(mb.mul, x, 0.5))
    near = of(mb.real_div, of(mb.mul, half, 2.0), of(mb.sub, 1.0, half))
    return choose(mb.less(x=mb.abs(x=x), y=number(1.0)), near, of(mb.sub, mb.exp(x=x), 1.0), x.shape)


def asinh(x: Any) -> Any:
    size = mb.abs(x=x)
    root = mb.sqrt(x=of(mb.add, mb.mul(x=size, y=size), 1.0))
    near = log1p(of(mb.add, size, of(mb.mul, size, of(mb.real_div, size, of(mb.add, root, 1.0)))))
    far = of(mb.add, mb.log(x=size), math.log(2))
    return mb.mul(x=mb.sign(x=x), y=choose(mb.less(x=size, y=number(250.0)), near, far, x.shape))


def acosh(x: Any) -> Any:
    above = of(mb.sub, x, 1.0)
    near = log1p(of(mb.add, above, mb.sqrt(x=of(mb.mul, above, of(mb.add, above, 2.0)))))
    return choose(mb.less(x=x, y=number(250.0)), near, of(mb.add, mb.log(x=x), math.log(2)), x.shape)


def hypot(x: Any, y: Any) -> Any:
    a, b = mb.abs(x=x), mb.abs(x=y)
    large, small = mb.maximum(x=a, y=b), mb.minimum(x=a, y=b)
    ratio = of(mb.real_div, small, choose(of(mb.equal, large, 0.0), 1.0, large, large.shape))
    return mb.mul(x=large, y=mb.sqrt(x=of(mb.add, mb.mul(x=ratio, y=ratio), 1.0)))


def atan2(y: Any, x: Any) -> Any:
    shape = np.broadcast_shapes(shape_of(y), shape_of(x))
    at_origin = mb.logical_and(x=of(mb.equal, x, 0.0), y=of(mb.equal, y, 0.0))
    angle = mb.atan(x=of(mb.real_div, y, choose(at_origin, 1.0, x, shape)))
    half_turn = choose(of(mb.less, y, 0.0), -math.pi, math.pi, shape_of(y))
    return of(mb.add, angle, choose(of(mb.less, x, 0.0), half_turn, 0.0, shape))


def divided(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return binary(mb.real_div, floating=True)(x, y)
    a, b = arithmetic(x, y)
    if rounding_mode == "floor":
        return mb.floor_div(x=a, y=b)
    if kind(a) == "fp32":
        return truncated(of(mb.real_div, a, b))
    sizes = mb.floor_div(x=_size(a), y=_size(b))
    return mb.mul(x=mb.mul(x=_sign(a), y=_sign(b)), y=sizes)


def _size(x: Any) -> Any:
    return np.abs(x) if isinstance(x, np.generic) else mb.abs(x=x)


def _sign(x: Any) -> Any:
    return np.sign(x) if isinstance(x, np.generic) else mb.sign(x=x)


def fmod(x: Any, y: Any) -> Any:
    """Write the remainder that has the sign of the dividend."""
    a, b = arithmetic(x, y)
    return mb.mul(x=_sign(a), y=mb.mod(x=_size(a), y=_size(b)))


def copysign(x: Any, y: Any) -> Any:
    a, b = promoted(x, y, floating=True)
    return of(mb.mul, _size(a), choose(of(mb.less, b, 0.0), -1.0, 1.0, shape_of(b)))


def comparison(operation: Function) -> Function:
    return binary(operation)


def logical(operation: Function) -> Function:
    return lambda *values: operation(**{name: cast(value, "bool") for name, value in zip("xy", values, strict=False)})


def is_nan(x: Any) -> Any:
    x = cast(x, "fp32")
    return mb.not_equal(x=x, y=x)


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


def shifted(x: Any, places: int) -> Any:
    """Write a shift of an integer by a constant: to the left as a product, to the right (negative) as a division that rounds down."""
    operation = mb.mul if places >= 0 else mb.floor_div
    return operation(x=cast(x, "int32"), y=np.int32(1 << abs(places)))


def bitwise_not(x: Any) -> Any:
    return mb.logical_not(x=x) if kind(x) == "bool" else mb.sub(x=np.int32(-1), y=x)


def where(condition: Any, x: Any, y: Any, *, after: Sequence[int]) -> Any:
    return choose(condition, x, y, after)


def masked_fill(x: Any, mask: Any, value: Any, *, after: Sequence[int]) -> Any:
    return choose(mask, cast(value, kind(x)), x, after)


def to_type(x: Any, dtype: torch.dtype | None = None, *_: Any, **__: Any) -> Any:
    """Write a conversion. float64 is float32, int64 is int32; a conversion to float16 rounds."""
    if dtype is None:
        return x
    value = cast(x, kind_of_type(dtype))
    return mb.cast(x=mb.cast(x=value, dtype="fp16"), dtype="fp32") if dtype == torch.float16 else value


def to_result(x: Any, *_: Any, result: torch.dtype, dtype: torch.dtype | None = None, **__: Any) -> Any:
    return to_type(x, result)


def elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    """Write scale * (x if x > 0 else alpha * (exp(input_scale * x) - 1))."""
    if scale == input_scale == 1:
        return mb.elu(x=x, alpha=np.float32(alpha))
    curve = of(mb.mul, expm1(of(mb.mul, of(mb.minimum, x, 0.0), input_scale)), alpha)
    return of(mb.mul, mb.add(x=mb.relu(x=x), y=curve), scale)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return mb.softplus(x=x) if beta == 1 else of(mb.real_div, mb.softplus(x=of(mb.mul, x, beta)), beta)


def prelu(x: Any, weight: Any) -> Any:
    slopes = weight if count_of(weight) == 1 or x.rank < 2 else mb.reshape(x=weight, shape=[-1, *[1] * (x.rank - 2)])
    return mb.add(x=mb.relu(x=x), y=mb.mul(x=slopes, y=of(mb.minimum, x, 0.0)))


def count_of(x: Any) -> int:
    return math.prod(shape_of(x))


def larger(operation: Function) -> Function:
    """Return a function that writes a maximum or minimum which passes over not-a-number."""

    def write(x: Any, y: Any, *, after: Sequence[int]) -> Any:
        a, b = arithmetic(x, y)
        if kind(a) != "fp32":
            return operation(x=a, y=b)
        return choose(is_nan(a), b, choose(is_nan(b), a, operation(x=a, y=b), after), after)

    return write


def thresholded(x: Any, low: float, value: float, *, after: Sequence[int]) -> Any:
    return choose(of(mb.greater, x, low), x, value, after)


def logit(x: Any, eps: float | None = None) -> Any:
    x = x if eps is None else mb.clip(x=x, alpha=number(eps), beta=number(1 - eps))
    return mb.log(x=of(mb.real_div, x, of(mb.sub, 1.0, x)))


def absolute(x: Any) -> Any:
    return mb.abs(x=x)


def negated(x: Any) -> Any:
    return mb.mul(x=x, y=np.float32(-1) if kind(x) == "fp32" else np.int32(-1))


COMPARISONS = {"eq": mb.equal, "ne": mb.not_equal, "lt": mb.less, "le": mb.less_equal, "gt": mb.greater, "ge": mb.greater_equal}
OPERATORS: dict[Any, Function] = {
    aten.__and__.Scalar: bitwise("and"),
    aten.__lshift__.Scalar: shifted,
    aten.__or__.Scalar: bitwise("or"),
    aten.__rshift__.Scalar: lambda x, places: shifted(x, -places),
    aten.__xor__.Scalar: bitwise("xor"),
    aten.abs.default: absolute,
    aten.acos.default: unary(mb.acos),
    aten.acosh.default: formula(acosh),
    aten.add.Scalar: scaled(mb.add),
    aten.add.Tensor: scaled(mb.add),
    aten.addcdiv.default: lambda x, a, b, *, value=1: of(mb.add, x, multiply(divided(a, b), value)),
    aten.addcmul.default: lambda x, a, b, *, value=1: of(mb.add, x, multiply(multiply(a, b), value)),
    aten.asin.default: unary(mb.asin),
    aten.asinh.default: formula(asinh),
    aten.atan.default: unary(mb.atan),
    aten.atan2.default: formula(atan2),
    aten.atanh.default: unary(mb.atanh),
    aten.bitwise_and.Scalar: bitwise("and"),
    aten.bitwise_and.Tensor: bitwise("and"),
    aten.bitwise_left_shift.Tensor_Scalar: shifted,
    aten.bitwise_not.default: bitwise_not,
    aten.bitwise_or.Scalar: bitwise("or"),
    aten.bitwise_or.Tensor: bitwise("or"),
    aten.bitwise_right_shift.Tensor_Scalar: lambda x, places: shifted(x, -places),
    aten.bitwise_xor.Scalar: bitwise("xor"),
    aten.bitwise_xor.Tensor: bitwise("xor"),
    aten.ceil.default: whole(mb.ceil),
    aten.celu.default: lambda x, alpha=1.0: elu(x, alpha, 1.0, 1 / alpha),
    aten.clamp.Tensor: clamp,
    aten.clamp.default: clamp,
    aten.clamp_max.Tensor: lambda x, high: clamp(x, None, high),
    aten.clamp_max.default: lambda x, high: clamp(x, None, high),
    aten.clamp_min.Tensor: clamp,
    aten.clamp_min.default: clamp,
    aten.copysign.Scalar: copysign,
    aten.copysign.Tensor: copysign,
    aten.cos.default: unary(mb.cos),
    aten.cosh.default: unary(mb.cosh),
    aten.div.Scalar: divided,
    aten.div.Scalar_mode: divided,
    aten.div.Tensor: divided,
    aten.div.Tensor_mode: divided,
    aten.elu.default: elu,
    aten.erf.default: unary(mb.erf),
    aten.erfc.default: formula(lambda x: of(mb.sub, 1.0, mb.erf(x=x))),
    aten.exp.default: unary(mb.exp),
    aten.exp2.default: unary(mb.exp2),
    aten.expm1.default: formula(expm1),
    aten.floor.default: whole(mb.floor),
    aten.floor_divide.default: lambda x, y: divided(x, y, rounding_mode="floor"),
    aten.fmax.default: larger(mb.maximum),
    aten.fmin.default: larger(mb.minimum),
    aten.fmod.Scalar: fmod,
    aten.fmod.Tensor: fmod,
    aten.frac.default: lambda x: mb.sub(x=x, y=truncated(x)),
    aten.gelu.default: lambda x, approximate="none": mb.gelu(x=x, mode="EXACT" if approximate == "none" else "TANH_APPROXIMATION"),
    aten.hardsigmoid.default: hard_sigmoid,
    aten.hardswish.default: lambda x: mb.mul(x=x, y=hard_sigmoid(x)),
    aten.hardtanh.default: lambda x, low=-1.0, high=1.0: clamp(x, low, high),
    aten.hypot.default: formula(hypot),
    aten.isfinite.default: lambda x: of(mb.less, mb.abs(x=cast(x, "fp32")), math.inf),
    aten.isinf.default: lambda x: of(mb.equal, mb.abs(x=cast(x, "fp32")), math.inf),
    aten.isnan.default: is_nan,
    aten.leaky_relu.default: lambda x, slope=0.01: mb.leaky_relu(x=x, alpha=np.float32(slope)),
    aten.log.default: unary(mb.log),
    aten.log10.default: formula(lambda x: of(mb.mul, mb.log(x=x), 1 / math.log(10))),
    aten.log1p.default: formula(log1p),
    aten.log2.default: formula(lambda x: of(mb.mul, mb.log(x=x), 1 / math.log(2))),
    aten.log_sigmoid.default: lambda x: negated(mb.softplus(x=negated(x))),
    aten.logical_and.default: logical(mb.logical_and),
    aten.logical_not.default: logical(mb.logical_not),
    aten.logical_or.default: logical(mb.logical_or),
    aten.logical_xor.default: logical(mb.logical_xor),
    aten.logit.default: logit,
    aten.masked_fill.Scalar: masked_fill,
    aten.masked_fill.Tensor: masked_fill,
    aten.maximum.default: binary(mb.maximum),
    aten.minimum.default: binary(mb.minimum),
    aten.mish.default: lambda x: mb.mul(x=x, y=mb.tanh(x=mb.softplus(x=x))),
    aten.mul.Scalar: multiply,
    aten.mul.Tensor: multiply,
    aten.neg.default: negated,
    aten.positive.default: lambda x: x,
    aten.pow.Scalar: power_of,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: power_of,
    aten.prelu.default: prelu,
    aten._prelu_kernel.default: lambda x, weight: mb.add(x=mb.relu(x=x), y=mb.mul(x=weight, y=of(mb.minimum, x, 0.0))),
    aten.reciprocal.default: formula(lambda x: of(mb.real_div, 1.0, x)),
    aten.relu.default: lambda x: mb.relu(x=x) if kind(x) == "fp32" else mb.maximum(x=x, y=np.int32(0)),
    aten.relu6.default: unary(mb.relu6),
    aten.remainder.Scalar: binary(mb.mod),
    aten.remainder.Scalar_Tensor: binary(mb.mod),
    aten.remainder.Tensor: binary(mb.mod),
    aten.round.decimals: rounded,
    aten.round.default: rounded,
    aten.rsqrt.default: unary(mb.rsqrt),
    aten.rsub.Scalar: reversed_difference,
    aten.rsub.Tensor: reversed_difference,
    aten.selu.default: lambda x: elu(x, 1.6732632423543772, 1.0507009873554805),
    aten.sgn.default: lambda x: mb.sign(x=x),
    aten.sigmoid.default: unary(mb.sigmoid),
    aten.sign.default: lambda x: mb.sign(x=x),
    aten.signbit.default: lambda x: mb.less(x=x, y=np.float32(0) if kind(x) == "fp32" else np.int32(0)),
    aten.silu.default: unary(mb.silu),
    aten.sin.default: unary(mb.sin),
    aten.sinh.default: unary(mb.sinh),
    aten.softplus.default: softplus,
    aten.sqrt.default: unary(mb.sqrt),
    aten.square.default: lambda x: mb.mul(x=x, y=x),
    aten.sub.Scalar: scaled(mb.sub),
    aten.sub.Tensor: scaled(mb.sub),
    aten.tan.default: unary(mb.tan),
    aten.tanh.default: unary(mb.tanh),
    aten.threshold.default: thresholded,
    aten.to.dtype: to_type,
    aten._to_copy.default: to_result,
    aten.trunc.default: whole(truncated),
    aten.where.ScalarOther: where,
    aten.where.ScalarSelf: where,
    aten.where.self: where,
    **{getattr(getattr(aten, name), form): comparison(operation) for name, operation in COMPARISONS.items() for form in ("Scalar", "Tensor")},
}
