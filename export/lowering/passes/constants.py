"""Passes that compute constant expressions, and merge equal operations and constants."""

from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.passes.editing import clean, constant

aten = torch.ops.aten


def fold_constants(graph: fx.GraphModule) -> None:
    """Replace an operation that depends on constants alone, such as the slice of a weight for one tap, by its value.

    A sliced weight left in the graph makes a convolution fifty times slower in XNNPACK, which needs constant weights. A value without elements
    is a constant too; the engines do not take it as a result.
    """
    values: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            values[node] = constant(graph, node)
        elif node.op == "call_function" and node.users and _has_no_elements(node):
            values[node] = torch.empty(node.meta["val"].shape, dtype=node.meta["val"].dtype)
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            result = node.target(*args, **kwargs)
            if isinstance(result, Tensor):
                values[node] = result.contiguous().clone()
            elif isinstance(result, tuple | list):  # The parts of a split, which other nodes take out.
                values[node] = result
    for index, node in enumerate([node for node, value in values.items() if node.op == "call_function" and isinstance(value, Tensor)]):
        if all(user in values for user in node.users):
            continue
        graph.register_buffer(f"constant_{index}", values[node])
        with graph.graph.inserting_before(node):
            folded = graph.graph.get_attr(f"constant_{index}")
        folded.meta["val"] = values[node]
        node.replace_all_uses_with(folded)
    for node in reversed(list(values)):
        if not node.users:
            graph.graph.erase_node(node)  # Dead-code elimination would keep operations that look as if they wrote in place.
    clean(graph)


def _has_no_elements(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and any(type(size) is int and size == 0 for size in value.shape)


def merge_duplicates(graph: fx.GraphModule) -> None:
    """Keep one of several equal operations or constants, such as the slice of a frame that two taps read.

    It does not merge the only two parts of a concatenation, because XNNPACK has no concatenation of one value.
    """
    known: dict[Any, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = constant(graph, node)
            key: Any = (tuple(value.shape), value.dtype, value.numpy().tobytes())
        elif node.op == "call_function":
            key = (node.target, repr(node.args), repr(node.kwargs))
        else:
            continue
        same = known.setdefault(key, node)
        if same is not node and not any(user.target == aten.cat.default and {*user.all_input_nodes} <= {node, same} for user in node.users):
            node.replace_all_uses_with(same)
            graph.graph.erase_node(node)
    clean(graph)
    used = {node.target for node in graph.graph.find_nodes(op="get_attr")}
    for name in [name for name, _ in (*graph.named_buffers(), *graph.named_parameters()) if name not in used]:
        delattr(graph, name)
