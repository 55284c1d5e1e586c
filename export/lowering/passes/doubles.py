"""A pass for values of float64, for which engines lack most operations."""

from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.compat.torch_internals import tree_leaves, tree_map
from clipstep.export.lowering.passes.editing import constant


def narrow_doubles(graph: fx.GraphModule) -> None:
    """Compute in float32 what the network computes in float64. Constants were computed in float64 before, and are rounded.

    Before: `cos(to(x, float64))`. After: `cos(to(x, float32))`.
    """
    nodes = [node for node in graph.graph.nodes if node.op in ("get_attr", "call_function")]
    if not any(isinstance(value, Tensor) and value.dtype == torch.float64 for node in nodes for value in tree_leaves(_value(graph, node))):
        return
    mode = next(node.meta["val"].fake_mode for node in graph.graph.find_nodes(op="placeholder"))
    for node in nodes:
        if node.op == "get_attr":
            value = constant(graph, node)
            if value.dtype == torch.float64:
                node.target = f"{node.name}_narrow"
                graph.register_buffer(node.target, value.float())
            node.meta["val"] = mode.from_tensor(constant(graph, node), static_shapes=True)
        else:
            node.args, node.kwargs = tree_map(lambda argument: torch.float32 if argument is torch.float64 else argument, (node.args, node.kwargs))
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
            with mode:
                node.meta["val"] = node.target(*args, **kwargs)
    graph.recompile()


def _value(graph: fx.GraphModule, node: fx.Node) -> Any:
    return constant(graph, node) if node.op == "get_attr" else node.meta.get("val")
