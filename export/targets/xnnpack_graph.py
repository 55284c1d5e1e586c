"""A lowered graph as one graph of XNNPACK's: the walk over its operations, and the limits that go into the operation before."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.order import RESHAPES
from clipstep.export.targets.common import NotTaken
from clipstep.export.targets.xnnpack import Graph
from clipstep.export.targets.xnnpack_operations import LIMITS, WRITERS, stored

aten = torch.ops.aten
MOVES = (*RESHAPES, aten.permute.default, aten.transpose.int)
PLANES = (aten.conv2d.default, aten.max_pool2d.default, aten.avg_pool2d.default)
LIMITED = (
    aten.conv2d.default, aten.linear.default, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.max_pool2d.default,
)  # fmt: skip
"""Operations of XNNPACK's that hold their results within limits at no cost."""


def xnnpack_graph(module: fx.GraphModule) -> Graph:
    """A graph of float32 values of rank 4 or less, its inputs and outputs with their axes in order.

    Raises:
        NotTaken: it has an operation that is not written here.
    """
    graph = Graph()
    found: dict[fx.Node, Any] = {}
    held: dict[fx.Node, fx.Node] = {}  # Operations that only hold a value within limits, where the value already is.
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found[node] = graph.input(node.meta["val"].shape)
        elif node.op == "get_attr":
            found[node] = getattr(module, node.target).detach()
        elif node.op == "output":
            for source in node.args[0]:
                graph.output(found[source])
        elif node in held:
            found[node] = found[node.args[0]]
        elif node.target in RESHAPES:
            found[node] = graph.reshape(stored(found[node.args[0]]), node.meta["val"].shape, channels_last=_goes_to_planes(node))
        elif node.target in WRITERS:
            args, kwargs = fx.map_arg((node.args, node.kwargs), found.__getitem__)
            if node.target in LIMITED and (limiter := _limiter(node)) is not None:
                held[limiter] = node
                kwargs = {**kwargs, "limits": LIMITS[limiter.target](*limiter.args[1:], **limiter.kwargs)}
            found[node] = WRITERS[node.target](graph, *args, **kwargs)
        else:
            raise NotTaken(str(node.target))
    graph.prune()
    return graph


def _users(node: fx.Node) -> Iterator[fx.Node]:
    """The users of a node, those of permutations and reshapes in their place."""
    for user in node.users:
        if user.target in MOVES:
            yield from _users(user)
        else:
            yield user


def _goes_to_planes(node: fx.Node) -> bool:
    return any(user.target in PLANES for user in _users(node))


def _limiter(node: fx.Node) -> fx.Node | None:
    """The operation that alone uses a node, maybe moved, and holds it within limits."""
    (user, *others) = node.users
    while user.target in MOVES and not others:
        (user, *others) = user.users
    return user if not others and user.target in LIMITS else None
