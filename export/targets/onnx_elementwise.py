"""Writes elementwise operators as ONNX: arithmetic, comparisons, logic and choices, of real numbers, integers and booleans."""

from collections.abc import Callable
from typing import Any

import torch

from clipstep.export.targets.onnx_graph import OnnxGraph
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def operator(name: str, **attributes: Any) -> Callable[..., str]:
    """Return a function that writes an operator as the ONNX operator of that name, with the same operands."""

    def write(graph: OnnxGraph, *operands: Any, kind: torch.dtype | None) -> str:
        return graph.add(name, *(graph.name(operand, kind) for operand in operands), **attributes)

    return write


def negated(name: str) -> Callable[..., str]:
    write = operator(name)
    return lambda graph, *operands, kind: graph.add("Not", write(graph, *operands, kind=kind))


def reversed_subtraction(graph: OnnxGraph, a: Any, b: Any, *, kind: torch.dtype | None) -> str:
    return graph.add("Sub", graph.name(b, kind), graph.name(a, kind))


def rsqrt(graph: OnnxGraph, x: str) -> str:
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def power(graph: OnnxGraph, x: str, exponent: float, *, kind: torch.dtype | None) -> str:
    return graph.add("Mul", x, x) if exponent == 2 else graph.add("Pow", x, graph.name(exponent, kind))


def remainder(graph: OnnxGraph, x: str, y: Any, *, kind: torch.dtype) -> str:
    """Write a remainder that has the sign of the divisor, as ONNX's has it for integers only."""
    divisor = graph.name(y, kind)
    if not kind.is_floating_point:
        return graph.add("Mod", x, divisor)
    rest = graph.add("Mod", x, divisor, fmod=1)
    return graph.add("Where", _other_sign(graph, rest, divisor, kind), graph.add("Add", rest, divisor), rest)


def whole_quotient(graph: OnnxGraph, x: str, y: Any, rounding_mode: str | None = None, *, kind: torch.dtype) -> str:
    """Write a division of integers, which ONNX rounds towards 0."""
    if rounding_mode is None or kind.is_floating_point:
        raise Unsupported("a division of integers that gives real numbers")
    divisor = graph.name(y, kind)
    quotient = graph.add("Div", x, divisor)
    if rounding_mode == "trunc":
        return quotient
    rest = graph.add("Mod", x, divisor, fmod=1)
    return graph.add("Where", _other_sign(graph, rest, divisor, kind), graph.add("Sub", quotient, graph.name(1, kind)), quotient)


def _other_sign(graph: OnnxGraph, rest: str, divisor: str, kind: torch.dtype) -> str:
    """Return where a remainder is not 0 and has another sign than the divisor."""
    zero = graph.name(0, kind)
    signs = graph.add("Xor", graph.add("Less", rest, zero), graph.add("Less", divisor, zero))
    return graph.add("And", graph.add("Not", graph.add("Equal", rest, zero)), signs)


def bitwise(name: str) -> Callable[..., str]:
    write = operator(name)

    def of_integers(graph: OnnxGraph, *operands: Any, kind: torch.dtype | None) -> str:
        if graph.opset < 18:
            raise Unsupported("an operator set before 18")
        return write(graph, *operands, kind=kind)

    return of_integers


def where(graph: OnnxGraph, chosen: Any, x: Any, y: Any) -> str:
    return graph.add("Where", graph.name(chosen), graph.name(x), graph.name(y))


SAME = {
    aten.add.Tensor: "Add",
    aten.sub.Tensor: "Sub",
    aten.mul.Tensor: "Mul",
    aten.div.Tensor: "Div",
    aten.maximum.default: "Max",
    aten.minimum.default: "Min",
    aten.pow.Tensor_Tensor: "Pow",
    aten.relu.default: "Relu",
    aten.sigmoid.default: "Sigmoid",
    aten.tanh.default: "Tanh",
    aten.exp.default: "Exp",
    aten.log.default: "Log",
    aten.sqrt.default: "Sqrt",
    aten.reciprocal.default: "Reciprocal",
    aten.abs.default: "Abs",
    aten.neg.default: "Neg",
    aten.sign.default: "Sign",
    aten.floor.default: "Floor",
    aten.ceil.default: "Ceil",
    aten.round.default: "Round",
    aten.erf.default: "Erf",
    aten.sin.default: "Sin",
    aten.cos.default: "Cos",
    aten.tan.default: "Tan",
    aten.asin.default: "Asin",
    aten.acos.default: "Acos",
    aten.atan.default: "Atan",
    aten.sinh.default: "Sinh",
    aten.cosh.default: "Cosh",
    aten.atanh.default: "Atanh",
    aten.gt.Tensor: "Greater",
    aten.gt.Scalar: "Greater",
    aten.ge.Tensor: "GreaterOrEqual",
    aten.ge.Scalar: "GreaterOrEqual",
    aten.lt.Tensor: "Less",
    aten.lt.Scalar: "Less",
    aten.le.Tensor: "LessOrEqual",
    aten.le.Scalar: "LessOrEqual",
    aten.eq.Tensor: "Equal",
    aten.eq.Scalar: "Equal",
    aten.logical_and.default: "And",
    aten.logical_or.default: "Or",
    aten.logical_not.default: "Not",
}
"""The operators that ONNX has too, by its names."""
OPERATORS: dict[Any, Callable[..., Any]] = {
    **{target: operator(name) for target, name in SAME.items()},
    aten.ne.Tensor: negated("Equal"),
    aten.ne.Scalar: negated("Equal"),
    aten.rsub.Scalar: reversed_subtraction,
    aten.rsqrt.default: rsqrt,
    aten.pow.Tensor_Scalar: power,
    aten.fmod.Tensor: operator("Mod", fmod=1),
    aten.fmod.Scalar: operator("Mod", fmod=1),
    aten.remainder.Tensor: remainder,
    aten.remainder.Scalar: remainder,
    aten.div.Tensor_mode: whole_quotient,
    aten.bitwise_and.Tensor: bitwise("BitwiseAnd"),
    aten.bitwise_and.Scalar: bitwise("BitwiseAnd"),
    aten.bitwise_or.Tensor: bitwise("BitwiseOr"),
    aten.bitwise_or.Scalar: bitwise("BitwiseOr"),
    aten.bitwise_xor.Tensor: bitwise("BitwiseXor"),
    aten.bitwise_xor.Scalar: bitwise("BitwiseXor"),
    aten.bitwise_not.default: bitwise("BitwiseNot"),
    aten.where.self: where,
}
