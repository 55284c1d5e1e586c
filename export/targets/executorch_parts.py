"""Splits a lowered graph between XNNPACK and portable kernels, with as few calls of the delegate as possible.

All operations that XNNPACK takes and that can run between the same operations outside of it are one *part*, connected or not: one call of the
delegate. The number of parts is the largest number of changes from portable kernels to XNNPACK on a way through the graph; no order
needs fewer.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets.quantization import QUANTIZATION

aten = torch.ops.aten
MOVEMENT = (
    *RESHAPES,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.cat.default,
    aten.expand.default,
    aten.index_select.default,
    aten.flip.default,
    aten.clone.default,
    aten.contiguous.default,
)
"""Operators that copy elements unchanged. Between operations outside of XNNPACK they stay outside, where that saves a call."""
MOVED = "it moves data between operations that are outside"


@dataclass(frozen=True)
class Split:
    """Which operations of a graph XNNPACK runs, and in which order with the others."""

    inside: dict[fx.Node, int]
    """The operations that XNNPACK runs, each with the number of its part, from 0."""
    outside: dict[fx.Node, int]
    """All other operations, each with the number of parts that run before it."""
    reasons: dict[fx.Node, str]
    """Why an operation is outside."""

    @property
    def count(self) -> int:
        """The number of parts."""
        return 1 + max(self.inside.values(), default=-1)


@dataclass(frozen=True)
class Part:
    """The operations that one call of the delegate runs, as a graph of their own."""

    graph: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    """What the call gets, in the order of its inputs: nodes of the whole graph."""
    outputs: tuple[fx.Node, ...]
    """What it returns, in the order of its outputs: nodes of the whole graph. A value that the graph returns several times is here as often."""


def split(graph: fx.GraphModule, refused: Mapping[fx.Node, str]) -> Split:
    """Split the graph. `refused` are the operations that XNNPACK does not take, each with the reason."""
    found = Split({}, {}, dict(refused))
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    for node in nodes:
        _place(node, found)
    count = found.count
    for node in reversed(nodes):
        _sink(node, found, count)
    return found


def _place(node: fx.Node, found: Split) -> None:
    """Place an operation as early as its inputs allow."""
    sources = node.all_input_nodes
    inside = max((found.inside.get(source, found.outside.get(source, 0)) for source in sources), default=0)
    outside = max((found.inside[source] + 1 if source in found.inside else found.outside.get(source, 0) for source in sources), default=0)
    follows = node.target is operator.getitem and node.args[0] in found.outside
    if node in found.reasons or follows or (node.target in MOVEMENT and outside == inside):
        found.outside[node] = outside
        if not follows:
            found.reasons.setdefault(node, MOVED)
    else:
        found.inside[node] = inside


def _sink(node: fx.Node, found: Split, count: int) -> None:
    """Move data movement into XNNPACK if nothing outside needs its result, and there is a part that can run it."""
    if found.reasons.get(node) != MOVED or any(user in found.outside for user in node.users):
        return
    part = min((found.inside[user] for user in node.users if user in found.inside), default=found.outside[node])
    if part < count:
        del found.outside[node], found.reasons[node]
        found.inside[node] = part


def parts_of(module: fx.GraphModule, found: Split) -> list[Part]:
    """Return the parts of a graph that was split, in order. What the graph returns without computing it is returned by the last part."""
    returned: Any = module.graph.output_node().args[0]
    last = found.count - 1
    place = {node: found.inside.get(node, last) for node in returned if node not in found.outside and value_of(node).dtype == torch.float32}
    return [_part(module, found, index, [node for node in returned if place.get(node) == index]) for index in range(found.count)]


def _part(module: fx.GraphModule, found: Split, index: int, returned: list[fx.Node]) -> Part:
    """Return a part; `returned` is what the whole graph returns of it."""
    nodes = [node for node in module.graph.nodes if found.inside.get(node) == index]
    needed = {source for node in nodes for source in node.all_input_nodes} | {node for node in returned if node.op == "placeholder"}
    inputs = [node for node in module.graph.nodes if node in needed and node.op != "get_attr" and found.inside.get(node) != index]
    used_later = [node for node in nodes if any(found.inside.get(user) != index and user.op != "output" for user in node.users)]
    outputs = [*returned, *(node for node in used_later if node not in returned)]
    graph = fx.Graph()
    copies = {node: _copied(graph.placeholder(node.name), node) for node in inputs}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copy)
        return copies[node]

    for node in (*nodes, *outputs):
        copy(node)
    graph.output(tuple(copies[node] for node in outputs))
    return Part(fx.GraphModule(module, graph), tuple(inputs), tuple(outputs))


def _copied(placeholder: fx.Node, node: fx.Node) -> fx.Node:
    placeholder.meta.update({key: node.meta[key] for key in ("val", QUANTIZATION) if key in node.meta})
    return placeholder


def value_of(node: fx.Node) -> Tensor:
    """Return a tensor of the shape and type of what a node of a graph computes, or is."""
    found: Any = node.meta["val"] if "val" in node.meta else getattr(node.graph.owning_module, str(node.target))
    assert isinstance(found, Tensor)
    return found
