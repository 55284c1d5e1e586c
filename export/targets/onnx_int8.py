"""Writes the operations that are computed in int8.

Values are held as uint8, which onnxruntime has kernels for on every processor. What only moves them takes and gives uint8. Products and sums are
written in float32 between DequantizeLinear and QuantizeLinear; onnxruntime makes one operation on integers of them when it loads the file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.targets import onnx_operations as operations
from clipstep.export.targets.common import Pair, pair, write_operator
from clipstep.export.targets.onnx_graph import OnnxGraph, unsigned
from clipstep.export.targets.onnx_kernels import PAIR_LEVELS
from clipstep.export.targets.quantization import HIGHEST, LOWEST, QUANTIZATION, WEIGHT_LEVELS, Quantization, quantized_weight
from clipstep.export.targets.xnnpack_elementwise import CLAMPS

aten = torch.ops.aten
MOST_ROWS = 8
"""The most rows of a large number by which a bias is multiplied in place of a row of ones."""


def write_int8(graph: OnnxGraph, node: fx.Node, found: Mapping[fx.Node, Any]) -> str:
    """Write an operation on integers and return the name of its result, which is of uint8."""
    operands = {one: _operand(graph, found[one], one) for one in node.all_input_nodes}
    quantization: Quantization = node.meta[QUANTIZATION]
    name: str = write_operator(OPERATORS, node, [graph], operands, kind=torch.uint8, quantization=quantization)
    return graph.held(name, quantization)


def _operand(graph: OnnxGraph, value: Any, node: fx.Node) -> Any:
    return graph.quantized(value, node.meta[QUANTIZATION]) if isinstance(value, str) else value


def _weights(graph: OnnxGraph, x: str, weight: Tensor, bias: Tensor | None, axis: int) -> list[str]:
    """Return the names of a weight, whose output channels are along `axis`, each with its own scale, and of the bias, dequantized both."""
    of_x = graph.integers[x].scale
    integers, scales = quantized_weight(weight, axis, PAIR_LEVELS, bias, of_x)
    zeros = graph.constant(torch.zeros(len(scales), dtype=torch.int8))
    names = [graph.add("DequantizeLinear", graph.constant(integers), graph.constant(scales), zeros, axis=axis)]
    if bias is not None:
        steps = scales * of_x
        whole = torch.round(bias.detach().double() / steps.double()).to(torch.int32)
        names.append(graph.add("DequantizeLinear", graph.constant(whole), graph.constant(steps), axis=0))
    return names


def conv2d(
    graph: OnnxGraph,
    x: str,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    quantization: Quantization,
) -> str:
    operands = [graph.dequantized(x), *_weights(graph, x, weight, bias, 0)]
    made = graph.add("Conv", *operands, strides=pair(stride), pads=pair(padding) * 2, dilations=pair(dilation), group=groups)
    return graph.quantized(made, quantization)


def linear(
    graph: OnnxGraph,
    x: str,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    before: Sequence[int],
    after: Sequence[int],
    quantization: Quantization,
) -> str:
    rows = graph.held(operations.reshape(graph, x, after=(-1, before[-1])), graph.integers[x])
    product = graph.add("Gemm", graph.dequantized(rows), *_weights(graph, rows, weight, bias, 0), transB=1)
    return operations.reshape(graph, graph.quantized(product, quantization), after=after)


def matmul(graph: OnnxGraph, a: Any, b: Any, *, quantization: Quantization) -> str:
    """Write a product with a constant matrix.

    onnxruntime's kernel takes a scale for each column of a second operand, but only one for all of a first. A first operand that is constant is of
    uint8, as the other one is; the products of two of uint8 are added up in 32 bits everywhere.
    """
    if isinstance(b, Tensor):
        product = graph.add("MatMul", graph.dequantized(a), *_weights(graph, a, b, None, 1))
    else:
        a, b = _with_whole_bias(graph, a, b)
        largest = float(a.abs().max())
        kind = Quantization(largest / WEIGHT_LEVELS if largest else 1.0, 0)
        product = graph.add("MatMul", graph.dequantized(_constant(graph, a, kind)), graph.dequantized(b))
    return graph.quantized(product, quantization)


def _with_whole_bias(graph: OnnxGraph, weight: Tensor, columns: str) -> tuple[Tensor, str]:
    """Return the operands of a product with other rows in place of a row of ones, by which the last column of `weight`, a bias, is multiplied.

    Integers of 8 bits are too few for a bias, which is often much larger than the products that it is added to. It becomes a sum of multiples of the
    weights' scale: some of the number farthest from 0 that `columns` can hold, and one of the number next to 0. That is as exact as 32 bits.
    """
    values, last = graph.joined.get(columns, ([], torch.empty(0)))
    if len(last) != 1 or not bool((last == 1).all()):
        return weight, columns
    kind = graph.integers[columns]
    far = max((end - kind.zero_point for end in (LOWEST, HIGHEST)), key=abs)
    bias, rest = weight[:, -1].double(), weight[:, :-1]
    largest, bias_in_far = float(rest.abs().max()), float(bias.abs().max()) / (abs(far) * kind.scale)
    rows = min(max(1, math.ceil(bias_in_far / largest)), MOST_ROWS) if largest else 1
    step = max(largest, bias_in_far / rows) / WEIGHT_LEVELS or 1.0
    left = torch.round(bias / (step * kind.scale))
    factors = []
    for row in range(rows, 0, -1):
        factors.append(torch.round(left / (far * row)))
        left = left - factors[-1] * far
    near = 1 if far > 0 else -1
    factors.append((left * near).clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS))
    constants = torch.tensor([far] * rows + [near], dtype=torch.float32)[:, None] * kind.scale
    joined = cat(graph, [*values, constants.expand(-1, last.shape[1])], quantization=kind)
    return torch.cat([rest, (torch.stack(factors, 1) * step).float()], 1), graph.held(joined, kind)


def add(graph: OnnxGraph, *operands: Any, quantization: Quantization) -> str:
    """Write a sum; a constant has a quantization of its own."""
    names = []
    for operand in operands:
        value = operand if isinstance(operand, str) else torch.as_tensor(operand, dtype=torch.float32)
        names.append(graph.dequantized(value if isinstance(value, str) else _constant(graph, value, Quantization.of(value))))
    return graph.quantized(graph.add("Add", *names), quantization)


def cat(graph: OnnxGraph, values: Sequence[Any], dim: int = 0, *, quantization: Quantization) -> str:
    names = [_constant(graph, value, quantization) if isinstance(value, Tensor) else value for value in values]
    result = operations.cat(graph, names, dim)
    if dim == 0 and isinstance(values[-1], Tensor):
        graph.joined[result] = names[:-1], values[-1]
    return result


def _constant(graph: OnnxGraph, value: Tensor, quantization: Quantization) -> str:
    return graph.held(graph.constant(unsigned(quantization.integers(value))), quantization)


def _integer(quantization: Quantization, number: float) -> int:
    return int(unsigned(quantization.integers(torch.tensor(number))))


def pad(
    graph: OnnxGraph,
    x: str,
    amounts: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
    *,
    before: Sequence[int],
    quantization: Quantization,
) -> str:
    return operations.pad(graph, x, amounts, mode, _integer(quantization, value or 0.0), before=before, kind=torch.uint8)


def constant_pad(graph: OnnxGraph, x: str, amounts: Sequence[int], value: float = 0.0, *, before: Sequence[int], quantization: Quantization) -> str:
    return operations.constant_pad(graph, x, amounts, _integer(quantization, value), before=before, kind=torch.uint8)


def clamp(bounds: Callable[..., tuple[float, float]]) -> Callable[..., str]:
    """Return a function that writes a clamp, unless the value's range does it already: what is beyond the range is cut off."""

    def write(graph: OnnxGraph, x: str, *given: Any, quantization: Quantization, **named: Any) -> str:
        low, high = (_integer(quantization, bound) for bound in bounds(*given, **named))
        return x if (low, high) == (0, HIGHEST - LOWEST) else operations.clamp(graph, x, low, high, kind=torch.uint8)

    return write


OPERATORS = operations.OPERATORS | {
    aten.conv2d.default: conv2d,
    aten.linear.default: linear,
    aten.mm.default: matmul,
    aten.matmul.default: matmul,
    aten.add.Tensor: add,
    aten.cat.default: cat,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: constant_pad,
    **{target: clamp(bounds) for target, bounds in CLAMPS.items()},
}
