"""Formulas of elementwise operators."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


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


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """The approximation of GELU by tanh."""
    return x * 0.5 * ((x + x * x * x * 0.044715).mul(math.sqrt(2 / math.pi)).tanh() + 1)


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


def remainder(x: Tensor, divisor: Tensor | float) -> Tensor:
    """The remainder of whole numbers, for which ExecuTorch's kernel returns what `fmod` does."""
    if x.is_floating_point():
        raise Unsupported("values of float32")
    return x - torch.div(x, divisor, rounding_mode="floor") * divisor


FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.where.self: where,
    aten.gelu.default: gelu,
    aten.pow.Tensor_Scalar: power,
    aten.remainder.Scalar: remainder,
    aten.remainder.Tensor: remainder,
}
