"""Elementwise operations of ML Programs: arithmetic, comparisons, logic, activations and conversions."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.mil.settings import Value, expect, tensor

INTEGERS = {"int8": (-(2**7), 2**7), "uint8": (0, 2**8), "int16": (-(2**15), 2**15), "uint16": (0, 2**16), "int32": (-(2**31), 2**31)}
"""The range of each integer type; its end is excluded."""


def unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *, x: function(tensor(x))


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *, x, y: function(tensor(x), tensor(y))


def cast(*, x: Value, dtype: str) -> Tensor:
    """Convert to a type. Narrow integers are held as int32, and float16 as float32 after rounding."""
    value = tensor(x)
    if dtype in INTEGERS:
        whole = value.to(torch.int64)
        low, high = INTEGERS[dtype]
        expect(not whole.numel() or (low <= int(whole.min()) and int(whole.max()) < high), f"a cast to {dtype} of values out of its range")
        return whole.to(torch.int32)
    if dtype == "bool":
        return value.to(torch.bool)
    expect(dtype in ("fp16", "fp32"), f"cast to {dtype}")
    return value.float() if dtype == "fp32" else value.half().float()


def quantize(*, input: Tensor, scale: Value, output_dtype: str, zero_point: Value = 0) -> Tensor:
    """Round to integers of 8 bits, of one scale and one zero point."""
    expect(output_dtype in ("int8", "uint8") and tensor(scale).ndim == 0 and tensor(zero_point).ndim == 0, f"quantize to {output_dtype} with scales")
    low, end = INTEGERS[output_dtype]
    return (torch.round(input / tensor(scale)) + tensor(zero_point)).clamp(low, end - 1).to(torch.int32)


def dequantize(*, input: Tensor, scale: Value, zero_point: Value = 0) -> Tensor:
    expect(tensor(scale).ndim == 0 and tensor(zero_point).ndim == 0, "dequantize with several scales")
    return (input - tensor(zero_point)).float() * tensor(scale)


def gelu(*, x: Tensor, mode: str) -> Tensor:
    expect(mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"), f"gelu with mode {mode}")
    if mode == "SIGMOID_APPROXIMATION":
        return x * (1.702 * x).sigmoid()
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def division(x: Tensor, y: Tensor) -> Tensor:
    expect(x.is_floating_point() or y.is_floating_point(), "real_div of integers")
    return x / y


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "abs": unary(torch.abs),
    "acos": unary(torch.acos),
    "add": binary(torch.add),
    "asin": unary(torch.asin),
    "atan": unary(torch.atan),
    "atanh": unary(torch.atanh),
    "cast": cast,
    "dequantize": dequantize,
    "ceil": unary(torch.ceil),
    "clamped_relu": lambda *, x, alpha, beta: torch.where(x >= 0, x, alpha * x).clamp(max=beta),
    "clip": lambda *, x, alpha, beta: x.clamp(alpha, beta),
    "cos": unary(torch.cos),
    "cosh": unary(torch.cosh),
    "elu": lambda *, x, alpha: F.elu(x, alpha),
    "equal": binary(torch.eq),
    "erf": unary(torch.erf),
    "exp": unary(torch.exp),
    "exp2": unary(torch.exp2),
    "floor": unary(torch.floor),
    "floor_div": binary(torch.floor_divide),
    "gelu": gelu,
    "greater": binary(torch.gt),
    "greater_equal": binary(torch.ge),
    "identity": unary(lambda x: x),
    "inverse": lambda *, x, epsilon: 1 / (x + epsilon),
    "leaky_relu": lambda *, x, alpha: F.leaky_relu(x, alpha),
    "less": binary(torch.lt),
    "less_equal": binary(torch.le),
    "linear_activation": lambda *, x, alpha, beta: x * alpha + beta,
    "log": lambda *, x, epsilon: (x + epsilon).log(),
    "logical_and": binary(torch.logical_and),
    "logical_not": unary(torch.logical_not),
    "logical_or": binary(torch.logical_or),
    "logical_xor": binary(torch.logical_xor),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "mod": binary(torch.remainder),
    "mul": binary(torch.mul),
    "not_equal": binary(torch.ne),
    "pow": binary(torch.pow),
    "quantize": quantize,
    "prelu": lambda *, x, alpha: torch.where(x > 0, x, _by_channel(alpha, x) * x),
    "real_div": binary(division),
    "relu": unary(torch.relu),
    "relu6": unary(F.relu6),
    "round": unary(torch.round),
    "rsqrt": lambda *, x, epsilon: (x + epsilon).rsqrt(),
    "scaled_tanh": lambda *, x, alpha, beta: alpha * (beta * x).tanh(),
    "select": lambda *, cond, a, b: torch.where(tensor(cond), tensor(a), tensor(b)),
    "sigmoid": unary(torch.sigmoid),
    "sigmoid_hard": lambda *, x, alpha, beta: (x * alpha + beta).clamp(0, 1),
    "sign": unary(torch.sign),
    "silu": unary(F.silu),
    "sin": unary(torch.sin),
    "sinh": unary(torch.sinh),
    "softplus": unary(F.softplus),
    "softplus_parametric": lambda *, x, alpha, beta: _by_channel(alpha, x) * F.softplus(_by_channel(beta, x) * x),
    "softsign": unary(F.softsign),
    "sqrt": unary(torch.sqrt),
    "square": unary(torch.square),
    "sub": binary(torch.sub),
    "tan": unary(torch.tan),
    "tanh": unary(torch.tanh),
    "threshold": lambda *, x, alpha: x.clamp(min=alpha),
    "thresholded_relu": lambda *, x, alpha: torch.where(x >= alpha, x, torch.zeros_like(x)),
}
