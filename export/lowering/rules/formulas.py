"""Pointwise operators that an engine lacks, written with those that all of them have, and the conversions of types that PyTorch leaves implicit.

The formulas are chosen so that no digits cancel near 0 and nothing overflows on the way. Where they can, they avoid comparisons and choices
between two values, which XNNPACK has none of.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def choose(chosen: Tensor, x: Any, y: Any) -> Tensor:
    """Return `x` where `chosen`, else `y`, of which one may be a number of the other one's type, or both real numbers."""
    like = next((value.dtype for value in (x, y) if isinstance(value, Tensor)), torch.float32)
    x, y = (value if isinstance(value, Tensor) else torch.full((), value, dtype=like) for value in (x, y))
    return torch.where(chosen, x, y)


def truncate(x: Tensor) -> Tensor:
    return x.sign() * x.abs().floor() if x.is_floating_point() else x


def arc_tangent_of_quotient(y: Tensor, x: Tensor) -> Tensor:
    angle = torch.atan(y / choose(x == 0, 1.0, x))
    beyond = choose(y >= 0, angle + math.pi, angle - math.pi)
    return choose(x > 0, angle, choose(x < 0, beyond, y.sign() * (math.pi / 2)))


def divided(x: Tensor, y: Any, *, rounding_mode: str | None = None) -> Any:
    """Divide. Rounded downwards, the quotient is computed as PyTorch does it, from the exact remainder."""
    if not x.is_floating_point() and not (isinstance(y, Tensor) and y.is_floating_point()) and not isinstance(y, float):
        return torch.div(x, y, rounding_mode=rounding_mode)
    if rounding_mode is None:
        return torch.div(x, y)
    if rounding_mode == "trunc":
        return truncate(x / y)
    rest = torch.fmod(x, y)
    whole = ((x - rest) / y).round()
    sign_differs = (rest < 0) != (y < 0) if isinstance(y, Tensor) else rest < 0 if y > 0 else rest > 0
    other_sign = torch.logical_and(rest != 0, sign_differs)
    return torch.where(other_sign, whole - 1, whole)


def copy_sign(x: Tensor, y: Any) -> Tensor:
    return x.abs() * (choose(y < 0, -1.0, 1.0) if isinstance(y, Tensor) else math.copysign(1.0, y))


def chosen(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a maximum or minimum of which one operand may be not a number: it is then the other one."""
    return lambda x, y: choose(x != x, y, choose(y != y, x, function(x, y)))


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), plus what the rounding of 1 + x has lost."""
    total = x + 1
    bounded = total.clamp(1e-30, 1e30)  # So that the correction is 0, not undefined, at -1 and at infinity.
    return total.log() + (x.clamp(max=1e30) - (bounded - 1)) / bounded


def log1p_within_1(x: Tensor) -> Tensor:
    """log(1 + x) for x from 0 to 1."""
    total = x + 1
    return total.log() + (x - (total - 1)) / total


def expm1(x: Tensor) -> Tensor:
    return (x / 2).tanh() * (x.exp() + 1)


def asinh(x: Tensor) -> Tensor:
    size = x.abs()
    bounded = size.clamp(max=1e9)  # Its square does not overflow, and the quotient is 1 from there on.
    return x.sign() * log1p(size + size * (bounded / ((bounded * bounded + 1).sqrt() + 1)))


def acosh(x: Tensor) -> Tensor:
    above = x - 1
    return log1p(above + above.sqrt() * (above + 2).sqrt())


def hypot(x: Tensor, y: Tensor) -> Tensor:
    large, small = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    ratio = small / choose(large == 0, 1.0, large)
    return large * (ratio * ratio + 1).sqrt()


ERFC = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277)
"""The coefficients of Chebyshev's approximation in Numerical Recipes, section 6.2: its relative error is below 1.2e-7."""


def erfc(x: Tensor) -> Tensor:
    size = x.abs()
    t = 1 / (size * 0.5 + 1)
    exponent = reduce(lambda total, coefficient: total * t + coefficient, ERFC[-2::-1], t * 0 + ERFC[-1])
    above = t * (-size * size).exp() * exponent.exp()
    return choose(x < 0, 2 - above, above)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    result = x.relu() + log1p_within_1((-(x * beta).abs()).exp()) / beta
    return result if threshold >= 20 else choose(x * beta > threshold, x, result)


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    if scale == input_scale == 1:
        return torch.ops.aten.elu.default(x, alpha)
    return (x.relu() + expm1(x.clamp(max=0) * input_scale) * alpha) * scale


def selu(x: Tensor) -> Any:
    return elu(x, 1.6732632423543772, 1.0507009873554805)


def clamp(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def power_of_number(base: float, exponent: Tensor) -> Tensor:
    if not exponent.is_floating_point():
        return power_of_number(base, exponent.to(torch.float32)).round().to(exponent.dtype)
    return (exponent * math.log(base)).exp() if base > 0 else torch.pow(torch.full((), base, dtype=exponent.dtype), exponent)


def scaled(function: Callable[[Any, Any], Tensor]) -> Callable[..., Tensor]:
    """Return an addition or subtraction of which the second operand may be multiplied by `alpha` first."""
    return lambda x, y, *, alpha=1: function(x, y if alpha == 1 else y * alpha)


def as_booleans(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a logical operator on numbers, of which all but 0 are true."""
    return lambda *operands: function(*(x if x.dtype == torch.bool else x != 0 for x in operands))


def of_booleans(logical: Any, otherwise: Any) -> Callable[..., Tensor]:
    """Return an operator that is a logical one on booleans."""

    def function(*operands: Any) -> Tensor:
        if all(isinstance(x, Tensor) and x.dtype == torch.bool for x in operands):
            return logical(*operands)  # type: ignore[no-any-return]
        return otherwise(*operands)  # type: ignore[no-any-return]

    return function


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: scaled(lambda x, y: of_booleans(torch.logical_or, torch.add)(x, y)),
    aten.add.Scalar: scaled(torch.add),
    aten.sub.Tensor: scaled(torch.sub),
    aten.sub.Scalar: scaled(torch.sub),
    aten.rsub.Scalar: lambda x, y, alpha=1: y - (x if alpha == 1 else x * alpha),
    aten.mul.Tensor: of_booleans(torch.logical_and, torch.mul),
    aten.mul.Scalar: torch.mul,
    aten.div.Scalar: torch.div,
    aten.square.default: lambda x: x * x,
    aten.pow.Tensor_Scalar: lambda x, exponent: x * x if exponent == 2 else torch.pow(x, exponent),
    aten.erfc.default: erfc,
    aten.exp2.default: lambda x: (x * math.log(2)).exp(),
    aten.expm1.default: expm1,
    aten.log1p.default: log1p,
    aten.log2.default: lambda x: x.log() * (1 / math.log(2)),
    aten.log10.default: lambda x: x.log() * (1 / math.log(10)),
    aten.asinh.default: asinh,
    aten.acosh.default: acosh,
    aten.atan2.default: arc_tangent_of_quotient,
    aten.hypot.default: hypot,
    aten.trunc.default: truncate,
    aten.frac.default: lambda x: x - truncate(x),
    aten.sgn.default: torch.sign,
    aten.signbit.default: lambda x: x < 0,
    aten.copysign.Tensor: copy_sign,
    aten.copysign.Scalar: copy_sign,
    aten.isnan.default: lambda x: x != x,
    aten.isinf.default: lambda x: x.abs() == math.inf,
    aten.round.decimals: lambda x, *, decimals=0: (x * 10.0**decimals).round() / 10.0**decimals if x.is_floating_point() else x,
    aten.remainder.Scalar_Tensor: lambda x, y: torch.remainder(torch.full((), x, dtype=y.dtype), y),
    aten.div.Tensor_mode: divided,
    aten.div.Scalar_mode: divided,
    aten.fmax.default: chosen(torch.maximum),
    aten.fmin.default: chosen(torch.minimum),
    aten.clamp.Tensor: clamp,
    aten.softplus.default: softplus,
    aten.mish.default: lambda x: x * softplus(x).tanh(),
    aten.selu.default: selu,
    aten.elu.default: elu,
    aten.celu.default: lambda x, alpha=1.0: elu(x, alpha, 1.0, 1 / alpha),
    aten.pow.Scalar: power_of_number,
    aten.ldexp.Tensor: lambda x, exponent: x * power_of_number(2.0, exponent.to(torch.float32)),
    aten.logical_and.default: as_booleans(torch.logical_and),
    aten.logical_or.default: as_booleans(torch.logical_or),
    aten.logical_xor.default: as_booleans(torch.ne),
    aten.logical_not.default: as_booleans(torch.logical_not),
    aten.bitwise_and.Tensor: of_booleans(torch.logical_and, torch.bitwise_and),
    aten.bitwise_or.Tensor: of_booleans(torch.logical_or, torch.bitwise_or),
    aten.bitwise_xor.Tensor: of_booleans(torch.ne, torch.bitwise_xor),
    aten.bitwise_not.default: of_booleans(torch.logical_not, torch.bitwise_not),
}
"""The formulas by operator, each with the operator's arguments. Those of operators that engines have are for settings that they lack."""

OF_REAL_NUMBERS = {
    aten.acos.default,
    aten.asin.default,
    aten.atan.default,
    aten.atan2.default,
    aten.atanh.default,
    aten.cos.default,
    aten.cosh.default,
    aten.div.Tensor,
    aten.erf.default,
    aten.exp.default,
    aten.exp2.default,
    aten.expm1.default,
    aten.log.default,
    aten.log10.default,
    aten.log1p.default,
    aten.log2.default,
    aten.reciprocal.default,
    aten.rsqrt.default,
    aten.sigmoid.default,
    aten.sin.default,
    aten.sinh.default,
    aten.sqrt.default,
    aten.tan.default,
    aten.tanh.default,
}
"""The operators whose results are real numbers for integers, too."""


def formula_of(operator: Any) -> Callable[..., Any]:
    """Return a pointwise operator as a function of tensors of one type: by its formula, if it has one, and with all conversions made explicit."""
    function, skipped = FORMULAS.get(operator, operator), int(operator == aten.where.self)

    def explicit(*args: Any, **kwargs: Any) -> Any:
        operands = args[skipped:]
        kinds = {x.dtype for x in operands if isinstance(x, Tensor)}
        if not kinds or kinds == {torch.float32}:
            return function(*args, **kwargs)
        first = next(x for x in operands if isinstance(x, Tensor))
        common = reduce(torch.promote_types, (torch.result_type(first, x) for x in operands if x is not None))
        if operator in OF_REAL_NUMBERS and not common.is_floating_point:
            common = torch.float32
        converted = (x.to(common) if isinstance(x, Tensor) and x.dtype != common else x for x in operands)
        return function(*args[:skipped], *converted, **kwargs)

    return explicit
