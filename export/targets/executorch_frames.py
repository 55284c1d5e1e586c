"""Puts one conversion of the whole frames in place of conversions of their parts."""

import torch
from torch import fx

from clipstep.export.lowering.operators import RESHAPES

aten = torch.ops.aten
DATA_MOVEMENT = (*RESHAPES, aten.permute.default, aten.slice.Tensor)
"""Operators that copy elements of their input, unchanged."""
CONVERSIONS = (aten.to.dtype, aten._to_copy.default)


def with_converted_frames(module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with an input converted to float32 as a whole, where it has another type and parts of it are converted.

    The conversion is then one operation before all others, because XNNPACK computes in floating point only. A conversion from float32 to float32
    falls away.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    converted: dict[fx.Node, fx.Node] = {}
    inputs = module.graph.find_nodes(op="placeholder")
    wanted = {_origin(node) for node in module.graph.nodes if _is_conversion(node)}
    for node in module.graph.nodes:
        if _is_conversion(node) and node.all_input_nodes[0].meta["val"].dtype == torch.float32:
            copies[node] = copies[node.all_input_nodes[0]]
        elif _is_conversion(node) and _origin(node) in inputs:
            copies[node] = converted[node.all_input_nodes[0]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        if node is inputs[-1]:
            for one in (one for one in inputs if one in wanted and one.meta["val"].dtype != torch.float32):
                converted[one] = _as_float(graph.call_function(aten.to.dtype, (copies[one], torch.float32)), one)
        elif node.target in DATA_MOVEMENT and node.all_input_nodes[0] in converted:
            converted[node] = _as_float(graph.node_copy(node, converted.__getitem__), node)
    for node in reversed(graph.nodes):
        if node.target in DATA_MOVEMENT and not node.users:
            graph.erase_node(node)
    return fx.GraphModule(module, graph)


def _is_conversion(node: fx.Node) -> bool:
    return node.target in CONVERSIONS and node.meta["val"].dtype == torch.float32


def _origin(conversion: fx.Node) -> fx.Node:
    """Return what is converted, before it was moved."""
    part = conversion.all_input_nodes[0]
    while part.target in DATA_MOVEMENT:
        part = part.all_input_nodes[0]
    return part


def _as_float(copy: fx.Node, node: fx.Node) -> fx.Node:
    copy.meta["val"] = node.meta["val"].to(torch.float32)
    return copy
