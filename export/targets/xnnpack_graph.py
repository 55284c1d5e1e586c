"""Writes a lowered graph as one XNNPACK graph, with clamps fused into the operators before them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets.common import write_operator
from clipstep.export.targets.xnnpack import Graph
from clipstep.export.targets.xnnpack_arithmetic import CLAMPS
from clipstep.export.targets.xnnpack_operations import OPERATORS

aten = torch.ops.aten
LAYOUT_ONLY = (*RESHAPES, aten.permute.default, aten.transpose.int)
"""Operators that change a value's shape or order of axes, but none of its elements."""
SPATIAL = (aten.conv2d.default, aten.max_pool2d.default, aten.avg_pool2d.default)
"""Operators that XNNPACK computes channels last (NHWC)."""
FUSES_CLAMP = (
    aten.conv2d.default,
    aten.linear.default,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.max_pool2d.default,
)
"""Operators whose XNNPACK node can clamp its result at no cost."""


def xnnpack_graph(module: fx.GraphModule) -> Graph:
    """Write a graph of float32 values of rank 4 or less, whose inputs and outputs have their axes in order in memory.

    Raises:
        Unsupported: it has an operator, or a setting of one, that is not written.
    """
    graph = Graph()
    found: dict[fx.Node, Any] = {}
    fused: dict[fx.Node, fx.Node] = {}  # Clamps, each with the operator that it is fused into.
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found[node] = graph.input(node.meta["val"].shape)
        elif node.op == "get_attr":
            found[node] = getattr(module, node.target).detach()
        elif node.op == "output":
            for source in node.args[0]:
                graph.output(found[source])
        elif node in fused:
            found[node] = found[node.args[0]]
        elif node.op == "call_function":
            more: dict[str, Any] = {"channels_last": _feeds_spatial(node)}
            if node.target in FUSES_CLAMP and (clamp_node := _fusable_clamp(node)) is not None:
                fused[clamp_node] = node
                more["clamp"] = CLAMPS[clamp_node.target](*clamp_node.args[1:], **clamp_node.kwargs)
            found[node] = write_operator(OPERATORS, node, [graph], found, **more)
    graph.prune()
    return graph


def _users(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the users of a node; a permutation or reshape among them is replaced by its own users."""
    for user in node.users:
        if user.target in LAYOUT_ONLY:
            yield from _users(user)
        else:
            yield user


def _feeds_spatial(node: fx.Node) -> bool:
    return any(user.target in SPATIAL for user in _users(node))


def _fusable_clamp(node: fx.Node) -> fx.Node | None:
    """Return the clamp that is the only user of a node, directly or through permutations and reshapes, or None."""
    (user, *others) = node.users
    while user.target in LAYOUT_ONLY and not others:
        (user, *others) = user.users
    return user if not others and user.target in CLAMPS else None
