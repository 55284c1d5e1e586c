"""The order in which a graph's operations run."""

import math
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
RESHAPES = (
    aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default,
)  # fmt: skip
"""Operations that give what there is another shape, which their results say."""
EACH = (aten.to.dtype, aten._to_copy.default, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
"""Operations on each number of their first operand, with constants or alone, that engines do not join with the one before."""


def slice_first(module: fx.GraphModule) -> None:
    """Cuts a value into parts before operations whose result is only used in parts, so that none is ever held whole."""
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
                    done = module.graph.call_function(aten.reshape.default, (part, list(user.meta["val"].shape)))
                else:
                    done = module.graph.call_function(node.target, (part, *node.args[1:]), node.kwargs)
                done.meta["val"] = user.meta["val"]
            user.replace_all_uses_with(done)
            module.graph.erase_node(user)
        module.graph.erase_node(node)
    module.recompile()


def _axis_before(module: fx.GraphModule, node: fx.Node, axis: int) -> int | None:
    """Which axis of an operation's only value becomes this axis of its result, part by part; None if none does."""
    if node.op != "call_function" or not node.all_input_nodes:
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
    return axis if node.target in EACH and node.args[0] is source and before == shape and alike else None


def depth_first(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph with each value computed as late as its first use allows.

    Engines run nodes in the order they stand in: this way a frame goes through several operations while it is in the
    processor's cache, instead of each operation going through all the frames.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    pending = list(reversed([*module.graph.find_nodes(op="placeholder"), module.graph.output_node()]))
    while pending:
        node = pending[-1]
        waiting = [source for source in node.all_input_nodes if source not in copies]
        if waiting:
            pending += reversed(waiting)
            continue
        pending.pop()
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph)
