"""Helpers of the passes: read and replace the constants of a convolution, and remove dead code."""

from typing import Any

from torch import Tensor, fx


def constant(graph: fx.GraphModule, node: Any) -> Tensor:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    tensor: Tensor = value.detach()
    return tensor


def optional_constant(graph: fx.GraphModule, node: Any) -> Tensor | None:
    return None if node is None else constant(graph, node)


def convolution_constants(graph: fx.GraphModule, conv: fx.Node) -> tuple[Tensor, Tensor | None]:
    bias = conv.args[2] if len(conv.args) > 2 else None
    return constant(graph, conv.args[1]), optional_constant(graph, bias)


def set_convolution_constants(graph: fx.GraphModule, conv: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
    nodes: list[fx.Node | None] = []
    for kind, value in (("weight", weight), ("bias", bias)):
        if value is None:
            nodes.append(None)
            continue
        name = f"{conv.name}_folded_{kind}"
        graph.register_buffer(name, value)
        with graph.graph.inserting_before(conv):
            nodes.append(graph.graph.get_attr(name))
    conv.args = (conv.args[0], *nodes, *conv.args[3:])


def results_of(node: fx.Node) -> list[fx.Node]:
    """Return the nodes whose values are tensors that an operation computes: itself, or those that take one of its results."""
    return [node] if isinstance(node.meta["val"], Tensor) else list(node.users)


def clean(graph: fx.GraphModule) -> None:
    graph.graph.eliminate_dead_code()
    graph.recompile()
