"""Formulas of elementwise operators."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
EXACT_THRESHOLD = 16
"""From here on, softplus is its argument, to the precision of float32."""


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A choice by a mask that is known at export, by limits: they leave a number as it is, or are both equal to the other number."""
    if not isinstance(condition, nn.Parameter):
        raise Unsupported("a condition that is computed")
    if {a.dtype, b.dtype} != {torch.float32}:
        raise Unsupported("values other than float32")
    if isinstance(a, nn.Parameter):
        return where(nn.Parameter(~condition, requires_grad=False), b, a)
    if isinstance(b, nn.Parameter):
        low, high = (torch.where(condition, limit, b) for limit in (-math.inf, math.inf))
        return torch.maximum(torch.minimum(a, high), low)
    zero = nn.Parameter(torch.tensor(0.0), requires_grad=False)
    return where(condition, a, zero) + where(nn.Parameter(~condition, requires_grad=False), b, zero)


def clamp(x: Tensor, low: Tensor | None = None, high: Tensor | None = None, **named: Tensor) -> Tensor:
    """A clamp by tensors."""
    low, high = named.get("min", low), named.get("max", high)
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    if threshold < EXACT_THRESHOLD:
        raise Unsupported("a `threshold` below 16")
    scaled = x * beta
    return (scaled.relu() + ((-scaled.abs()).exp() + 1).log()) / beta


def mish(x: Tensor) -> Tensor:
    return x * softplus(x).tanh()


def selu(x: Tensor) -> Tensor:
    return F.elu(x, 1.6732632423543772) * 1.0507009873554805


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """The approximation of GELU by tanh."""
    return x * 0.5 * ((x + x * x * x * 0.044715).mul(math.sqrt(2 / math.pi)).tanh() + 1)


def trunc(x: Tensor) -> Tensor:
    return x.relu().floor() - (-x).relu().floor()


def power(x: Tensor, exponent: float) -> Tensor:
    """A power whose exponent is a multiple of a quarter, as products and square roots."""
    whole, quarters = divmod(abs(exponent) * 4, 4)
    if x.dtype != torch.float32:
        raise Unsupported("values other than float32")
    if quarters != int(quarters) or not 0 < abs(exponent) <= 8:
        raise Unsupported("an exponent that is no multiple of 0.25, or above 8")
    factors = _powers(x, int(whole))
    if quarters:
        root = x.sqrt()
        factors += [root] * (quarters >= 2) + [root.sqrt()] * (quarters % 2 == 1)
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product.reciprocal() if exponent < 0 else product


def _powers(x: Tensor, exponent: int) -> list[Tensor]:
    """Return powers of two of `x` whose product is its power."""
    found = []
    while exponent:
        if exponent % 2:
            found.append(x)
        exponent //= 2
        x = x * x if exponent else x
    return found


def power_of_number(base: float, exponent: Tensor) -> Tensor:
    if base <= 0:
        raise Unsupported("a base that is not positive")
    return (exponent * math.log(base)).exp()


def remainder(x: Tensor, divisor: Tensor | float) -> Tensor:
    """The remainder of whole numbers, for which ExecuTorch's kernel returns what `fmod` does."""
    if x.is_floating_point():
        raise Unsupported("values of float32")
    return x - torch.div(x, divisor, rounding_mode="floor") * divisor


def signbit(x: Tensor) -> Tensor:
    """Whether a number is negative, or the zero that is."""
    return (x < 0) | ((x == 0) & (x.reciprocal() < 0))


def copysign(x: Tensor, sign: Tensor) -> Tensor:
    return torch.where(sign < 0, -x.abs(), x.abs())


def larger(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two numbers, or the one that is a number."""
    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, torch.maximum(a, b)))


def smaller(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two numbers, or the one that is a number."""
    return -larger(-a, -b)


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.where.self: where,
    aten.clamp.Tensor: clamp,
    aten.softplus.default: softplus,
    aten.mish.default: mish,
    aten.selu.default: selu,
    aten.gelu.default: gelu,
    aten.trunc.default: trunc,
    aten.frac.default: lambda x: x - trunc(x),
    aten.square.default: lambda x: x * x,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Scalar: power_of_number,
    aten.exp2.default: lambda x: power_of_number(2, x),
    aten.log2.default: lambda x: x.log() * (1 / math.log(2)),
    aten.log10.default: lambda x: x.log() * (1 / math.log(10)),
    aten.erfc.default: lambda x: 1 - x.erf(),
    aten.hypot.default: lambda x, y: (x * x + y * y).sqrt(),
    aten.copysign.Tensor: copysign,
    aten.remainder.Scalar: remainder,
    aten.remainder.Tensor: remainder,
    aten.signbit.default: signbit,
    aten.to.device: lambda x, device, dtype, *_: x.to(dtype),
    aten.fmax.default: larger,
    aten.fmin.default: smaller,
}
