"""Writes elementwise operators as operators of XNNPACK."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.executorch_internals import schema
from clipstep.export.targets.xnnpack import Clamp, Graph, XnnValue
from clipstep.export.targets.xnnpack_movement import largest
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
INFINITY = float("inf")


def _between(low: float | None = None, high: float | None = None) -> tuple[float, float]:
    return (-INFINITY if low is None else low, INFINITY if high is None else high)


CLAMPS: dict[Any, Callable[..., tuple[float, float]]] = {
    aten.relu.default: lambda: (0.0, INFINITY),
    aten.relu6.default: lambda: (0.0, 6.0),
    aten.hardtanh.default: lambda low=-1.0, high=1.0: (low, high),
    aten.clamp.default: _between,
}


def binary(operation: Any) -> Callable[..., XnnValue]:
    def write(graph: Graph, a: Any, b: Any, clamp: Clamp = None) -> XnnValue:
        like = largest([value for value in (a, b) if isinstance(value, XnnValue)])
        rank = max(value.ndim if isinstance(value, Tensor) else 0 for value in (a, b))
        if rank > len(like.axes):  # The constant has more axes than the value.
            like = graph.reshape(like, (*[1] * (rank - len(like.axes)), *like.shape))
            a, b = (like if isinstance(value, XnnValue) else value for value in (a, b))
        (first, shape), (second, other) = (graph.operand(value, like) for value in (a, b))
        memory = [max(sizes) for sizes in zip(shape, other, strict=True)]
        return graph.add(operation, memory, like.axes, clamp, input1_id=first, input2_id=second)

    return write


def unary(operation: Any, **fields: Any) -> Callable[..., XnnValue]:
    return lambda graph, x: graph.elementwise(operation, x, **fields)


def leaky_relu(graph: Graph, x: XnnValue, slope: float = 0.01) -> XnnValue:
    return unary(schema.XNNLeakyReLU, negative_slope=float(slope))(graph, x)


def elu(graph: Graph, x: XnnValue, alpha: float = 1.0) -> XnnValue:
    return unary(schema.XNNELU, alpha=float(alpha))(graph, x)


def hard_sigmoid(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNMultiply)(graph, binary(schema.XNNAdd)(graph, x, 3.0, clamp=(0.0, 6.0)), 1 / 6)


def gelu(graph: Graph, x: XnnValue, approximate: str = "none") -> XnnValue:
    if approximate != "none":
        raise Unsupported("the approximation by tanh")
    return unary(schema.XNNGelu)(graph, x)


def silu(graph: Graph, x: XnnValue) -> XnnValue:
    return binary(schema.XNNMultiply)(graph, x, unary(schema.XNNSigmoid)(graph, x))


def clamp_writer(target: Any) -> Callable[..., XnnValue]:
    def write(graph: Graph, x: XnnValue, *given: float) -> XnnValue:
        return graph.elementwise(schema.XNNClamp, x, CLAMPS[target](*given))

    return write


def power(graph: Graph, x: XnnValue, exponent: float) -> XnnValue:
    if exponent != 2:
        raise Unsupported("an exponent other than 2")
    return unary(schema.XNNSquare)(graph, x)
