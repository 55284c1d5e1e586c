"""A pass that slices a value earlier, if only slices of it are used."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.operators import ELEMENTWISE, RESHAPES

aten = torch.ops.aten


def slice_early(module: fx.GraphModule) -> None:
    """Slice a value before an operation of whose result only slices are used, so that the whole result is never in memory.

    Before: `y = x.float(); y[0:1], y[1:2]`. After: `x[0:1].float(), x[1:2].float()`.
    """
    for node in reversed(module.graph.nodes):
        users = list(node.users)
        if len(users) < 2 or any(user.target != aten.slice.Tensor or len(user.args) != 4 for user in users):
            continue
        (axis, *others) = {user.args[1] for user in users}
        if others or sum(user.meta["val"].shape[axis] for user in users) > node.meta["val"].shape[axis]:
            continue
        before = _axis_before(module, node, axis)
        if before is None:
            continue
        source = node.args[0]
        for user in users:
            cut = (before, *user.args[2:])
            with module.graph.inserting_before(user):
                part = module.graph.call_function(aten.slice.Tensor, (source, *cut))
                part.meta["val"] = aten.slice.Tensor(source.meta["val"], *cut)
                if node.target in RESHAPES:
                    sliced = module.graph.call_function(aten.reshape.default, (part, list(user.meta["val"].shape)))
                else:
                    sliced = module.graph.call_function(node.target, (part, *node.args[1:]), node.kwargs)
                sliced.meta["val"] = user.meta["val"]
                for new in (part, sliced):
                    new.meta.update({key: node.meta[key] for key in ("from_node",) if key in node.meta})
            user.replace_all_uses_with(sliced)
            module.graph.erase_node(user)
        module.graph.erase_node(node)
    module.recompile()


def _axis_before(module: fx.GraphModule, node: fx.Node, axis: int) -> int | None:
    """Return the axis of an operation's only input whose slices give the slices of the result along `axis`; None if there is none."""
    if node.op != "call_function" or not node.all_input_nodes or not isinstance(node.all_input_nodes[0].meta.get("val"), Tensor):
        return None
    source, *others = node.all_input_nodes
    if source.op == "get_attr" or any(other.op != "get_attr" for other in others) or source in node.args[1:]:
        return None
    shape, before = node.meta["val"].shape, source.meta["val"].shape
    if node.target == aten.permute.default:
        order: Any = node.args[1]
        return int(order[axis]) % len(shape)
    if node.target in RESHAPES:
        same = [i for i, size in enumerate(before) if size == shape[axis] and math.prod(before[:i]) == math.prod(shape[:axis])]
        return same[0] if same else None
    constants = [getattr(module, str(other.target)).shape for other in others]
    alike = all(len(constant) < len(shape) - axis or constant[axis - len(shape)] == 1 for constant in constants)
    return axis if node.target in ELEMENTWISE and node.args[0] is source and before == shape and alike else None
