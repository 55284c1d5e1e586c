"""Writes a lowered graph as an ONNX model, operator by operator.

torch.onnx takes more than half a minute for a graph of a thousand operators, because it traces the graph anew several times.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import helper
from torch import fx

from clipstep.export.targets.common import write_operator
from clipstep.export.targets.onnx import OPSETS
from clipstep.export.targets.onnx_graph import TYPES, OnnxGraph
from clipstep.export.targets.onnx_int8 import write_int8
from clipstep.export.targets.onnx_operations import OPERATORS
from clipstep.export.targets.quantization import COMPUTED_IN


def onnx_model(module: fx.GraphModule, input_names: Sequence[str], output_names: Sequence[str], opset: int = OPSETS[-1]) -> onnx.ModelProto:
    """Write the model of a graph in the operator set `opset`, and in the oldest version of the file format that has this set.

    Raises:
        Unsupported: it has an operator, or a setting of one, that is not written here.
    """
    graph, found, inputs = OnnxGraph(opset, {*input_names, *output_names}), dict[fx.Node, Any](), []
    names, outputs = iter(input_names), []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found[node] = next(names)
            inputs.append(_described(found[node], node))
        elif node.op == "get_attr":
            found[node] = getattr(module, node.target)
        elif node.op == "output":
            for source, name in zip(node.args[0], output_names, strict=True):
                graph.nodes.append(helper.make_node("Identity", [graph.dequantized(graph.name(found[source]))], [name], name=name))
                outputs.append(_described(name, source))
        elif node.op == "call_function":
            found[node] = _written(graph, node, found)
    nodes = _used(graph.nodes, output_names)
    inputs_of_nodes = {name for node in nodes for name in node.input}
    constants = [constant for constant in graph.initializers.values() if constant.name in inputs_of_nodes]
    proto = helper.make_graph(nodes, "step", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets), producer_name="clipstep")


def _written(graph: OnnxGraph, node: fx.Node, found: Mapping[fx.Node, Any]) -> Any:
    """Write what a node computes, and return its value."""
    if node.meta.get(COMPUTED_IN) == torch.int8:
        return write_int8(graph, node, found)
    operands = {one: graph.dequantized(found[one]) if isinstance(found[one], str) else found[one] for one in node.all_input_nodes}
    return write_operator(OPERATORS, node, [graph], operands)


def _used(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that an output depends on, without those that were merged into later ones."""
    needed, used = set(outputs), []
    for node in reversed(nodes):
        if needed & {*node.output}:
            used.append(node)
            needed |= {*node.input}
    return used[::-1]


def _described(name: str, node: fx.Node) -> onnx.ValueInfoProto:
    value = node.meta["val"]
    return helper.make_tensor_value_info(name, TYPES[value.dtype], list(value.shape))
