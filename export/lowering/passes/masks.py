"""A pass for masks that are known at export, which engines apply by arithmetic."""

from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.passes.editing import clean, constant

aten = torch.ops.aten


def fold_masks(graph: fx.GraphModule) -> None:
    """Write a choice by a constant mask as a product and a sum with constants, because not every engine has a choice between two values.

    Before: `where(mask, fill, scores)`, as masked attention has it. After: `scores * (0 where masked, else 1) + (fill where masked, else 0)`, without
    the product if `fill` is minus infinity.
    """
    for node in graph.graph.find_nodes(op="call_function", target=aten.where.self):
        mask, *choices = (constant(graph, arg) if arg.op == "get_attr" else arg for arg in node.args)
        if isinstance(mask, fx.Node) or not node.meta["val"].is_floating_point() or not any(isinstance(choice, Tensor) for choice in choices):
            continue
        chosen = mask if isinstance(choices[0], Tensor) else ~mask
        fill, value = choices if isinstance(choices[0], Tensor) else choices[::-1]
        if isinstance(value, Tensor) or value.meta["val"].shape != node.meta["val"].shape:
            continue
        added = torch.where(chosen, fill, 0.0)
        with graph.graph.inserting_before(node):
            if not bool((fill == -torch.inf).all()):
                value = _with_constant(graph, node, aten.mul.Tensor, value, (~chosen).to(added.dtype), "kept")
            node.replace_all_uses_with(_with_constant(graph, node, aten.add.Tensor, value, added, "filled"))
    clean(graph)


def _with_constant(graph: fx.GraphModule, node: fx.Node, operation: Any, value: fx.Node, factor: Tensor, name: str) -> fx.Node:
    graph.register_buffer(f"{node.name}_{name}", factor)
    result = graph.graph.call_function(operation, (value, graph.graph.get_attr(f"{node.name}_{name}")))
    result.meta["val"] = node.meta["val"]
    return result
