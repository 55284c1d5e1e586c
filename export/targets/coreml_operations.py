"""Writes a lowered graph as an ML Program: one small function for each ATen operator, by kind in the modules `coreml_*`.

coremltools' own converter would export the graph once more and run a hundred passes over it, which takes four times as long.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import getitem
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from torch import Tensor, fx

from clipstep.export.compat.coremltools_internals import Function, Program, types
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.source_lines import describe_error
from clipstep.export.targets import coreml_elementwise, coreml_indexing, coreml_layers, coreml_movement, coreml_reductions
from clipstep.export.targets.common import IDENTITY, described, write_operator
from clipstep.export.targets.coreml_values import constant
from clipstep.export.targets.float16 import PRODUCTS
from clipstep.export.targets.quantization import COMPUTED_IN, QUANTIZATION, Quantization
from clipstep.export.unsupported import Unsupported

Writer = Callable[..., Any]


def ml_program(
    module: fx.GraphModule,
    input_names: Sequence[str],
    output_names: Sequence[str],
    target: Any = ct.target.iOS17,
    origins: dict[str, fx.Node] | None = None,
) -> Program:
    """Write the program of a graph. Its inputs are float32, frames of uint8 too.

    If `origins` is given, the node that each operation was written for is added to it, by the operation's name.

    Raises:
        Unsupported: it has an operator, or a setting of one, that is not written here or that Core ML does not take.
    """
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in placeholders:
        if node.meta["val"].dtype not in (torch.float32, torch.uint8):
            raise Unsupported("an input that is neither float32 nor frames of uint8")
    inputs = {
        name: mb.placeholder(shape=tuple(node.meta["val"].shape), dtype=types.fp32) for name, node in zip(input_names, placeholders, strict=True)
    }
    mb.name_count.clear()  # So that equal constants have equal names in all precisions, whatever was written or refused before.
    program = Program()
    with Function(inputs, opset_version=target) as function:
        found: dict[fx.Node, Any] = dict(zip(placeholders, function.inputs.values(), strict=True))
        rounded: dict[fx.Node, Any] = {}
        outputs: list[Any] = []
        counts: list[tuple[fx.Node, int]] = []
        for node in module.graph.nodes:
            if node.op == "output":
                _keep_free(function, {*input_names, *output_names})
                outputs = [_named(found[source], name) for source, name in zip(node.args[0], output_names, strict=True)]
            elif node.op != "placeholder":
                found[node] = _written(module, node, found, rounded)
                counts.append((node, len(function.operations)))
        if origins is not None:
            operations, before = list(function.operations), 0
            for node, after in counts:
                origins.update((operation.name, node) for operation in operations[before:after])
                before = after
        function.set_outputs(outputs)
    program.add_function("main", function)
    return program


def _written(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Any], rounded: dict[fx.Node, Any]) -> Any:
    """Write what a node computes, and return its value. The values that are operands of products in int8 are added to `rounded`, rounded."""
    with _refusals_of_coremltools(node):
        if node.op == "get_attr":
            return constant(getattr(module, str(node.target)), node.name)
        if node.target is getitem:
            (several,) = node.all_input_nodes
            return found[several][node.args[1]]
        value = node.meta.get("val")
        if node.target in PRODUCTS and node.meta.get(COMPUTED_IN) == torch.int8:
            operands = [one for one in node.all_input_nodes if one.op != "get_attr"]
            rounded.update({one: _rounded(found[one], one.meta[QUANTIZATION]) for one in operands if one not in rounded})
            found = found | {one: rounded[one] for one in operands}
        outputs = [tuple(part.shape) for part in value if isinstance(part, Tensor)] if isinstance(value, tuple | list) else []
        return write_operator(OPERATORS, node, [], found, result=getattr(value, "dtype", None), outputs=outputs)


def _rounded(x: Any, quantization: Quantization) -> Any:
    """Return a value as floats that stand for integers of 8 bits: where a product reads it, Core ML may compute that of integers."""
    scale, zero_point = np.float32(quantization.scale), np.int8(quantization.zero_point)
    integers = mb.quantize(input=x, scale=scale, zero_point=zero_point, output_dtype="int8")
    return mb.dequantize(input=integers, scale=scale, zero_point=zero_point)


@contextmanager
def _refusals_of_coremltools(node: fx.Node) -> Iterator[None]:
    """Turn whatever coremltools raises while a node is written into `Unsupported`."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:  # coremltools raises a dozen types, for types, shapes and settings that an operation does not take.
        raise Unsupported(f"{described(node)}: {describe_error(error)}") from error


def _keep_free(function: Function, taken: set[str]) -> None:
    """Rename the values inside a function that have a name of an input or output: a state may be called `conv_0`."""
    for operation in function.operations:
        for value in operation.outputs:
            while value.name in taken:
                value.name = operation.name = f"{value.name}_"


def _named(x: Any, name: str) -> Any:
    """Return the value as an output of that name: renamed if it is an operation's result; a copy if it is an input, a constant or an output
    already."""
    if x.op is None or x.val is not None or x.op.name != x.name:
        return mb.identity(x=x, name=name)
    x.name = name
    return x


def identity(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


OPERATORS: dict[Any, Writer] = {
    **coreml_elementwise.OPERATORS,
    **coreml_indexing.OPERATORS,
    **coreml_layers.OPERATORS,
    **coreml_movement.OPERATORS,
    **coreml_reductions.OPERATORS,
    **dict.fromkeys(IDENTITY, identity),
    **dict.fromkeys(RESHAPES, coreml_movement.reshape),
}
