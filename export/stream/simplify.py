"""Passes over a clip network's graph after which the rules find the axis of time, and attention written by hand."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.passes.editing import clean, constant

aten = torch.ops.aten
VIEWS = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
PRODUCTS = (aten.matmul.default, aten.bmm.default)
SOFTMAX = (aten.softmax.int, aten._softmax.default)
KEEPING = (aten.clone.default, aten.alias.default, aten.detach.default, aten.dropout.default)


def sink_views(graph: fx.GraphModule) -> None:
    """Move a reshape that joins the rows of a linear layer behind it, where the reshape that splits them again undoes it.

    Before: `view(linear(view(x, [T * N, D])), [T, N, E])`, as nn.MultiheadAttention has it. After: `linear(x)`.
    """
    for node in graph.graph.nodes:
        if node.target == aten.linear.default and node.args[0].target in VIEWS:
            _sink(graph, node)
        elif node.target in VIEWS and node.args[0].target in VIEWS:
            node.args = (node.args[0].args[0], list(node.meta["val"].shape))
    clean(graph)


def _sink(graph: fx.GraphModule, linear: fx.Node) -> None:
    view: Any = linear.args[0]
    x, width = view.args[0], view.meta["val"].shape[-1]
    shape = list(x.meta["val"].shape)
    joined = next((j for j in range(len(shape), 0, -1) if math.prod(shape[j:]) == width), None)
    if joined is None or joined == len(shape):
        return
    with graph.graph.inserting_before(linear):
        rows = _call(graph, aten.view.default, x, [*shape[:joined], width])
        computed = _call(graph, aten.linear.default, rows, *linear.args[1:])
        linear.replace_all_uses_with(_call(graph, aten.view.default, computed, list(linear.meta["val"].shape)))


def find_attention(graph: fx.GraphModule) -> None:
    """Put one operator in place of attention that is written as two products and a softmax, with a constant mask or none.

    Before: `matmul(softmax(matmul(q, k.T) * scale + mask, -1), v)`. After: `scaled_dot_product_attention(q, k, v, mask, scale=scale)`.
    """
    for softmax in [node for node in graph.graph.nodes if node.target in SOFTMAX]:
        (product, scale, chain), weights = _scores(softmax.args[0]), _only_use(softmax)
        shape = softmax.meta["val"].shape
        if product is None or weights is None or weights.target not in PRODUCTS or len(shape) < 3 or softmax.args[1] % len(shape) != len(shape) - 1:
            continue
        if weights.args[0] is not softmax and weights.args[0].target not in KEEPING:
            continue
        mask = torch.zeros(shape[-2:])  # What the operations make of scores of zero.
        for node in reversed(chain):
            source = _before(chain, node, product)
            mask = node.target(*(mask if arg is source else _value(graph, arg) for arg in node.args))
        with graph.graph.inserting_before(weights):
            name = f"{softmax.name}_mask"
            graph.register_buffer(name, mask)
            keys = _call(graph, aten.transpose.int, product.args[1], -2, -1)
            given = (product.args[0], keys, weights.args[1], *([graph.graph.get_attr(name)] if mask.any() else []))
            attention = _call(graph, aten.scaled_dot_product_attention.default, *given, scale=scale)
        weights.replace_all_uses_with(attention)
    clean(graph)


def _before(chain: list[fx.Node], node: fx.Node, product: fx.Node) -> fx.Node:
    place = chain.index(node) + 1
    return chain[place] if place < len(chain) else product


def _scores(node: fx.Node) -> tuple[fx.Node | None, float, list[fx.Node]]:
    """Return the product that scores come from, the factor that it is multiplied by, and the operations with constants between, the last one first."""
    scale, chain = 1.0, []
    while node.target not in PRODUCTS:
        computed = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op != "get_attr"]
        factor = node.args[1] if len(node.args) > 1 else None
        if len(computed) != 1 or len(node.users) != 1:
            return None, scale, chain
        if node.target in (aten.mul.Tensor, aten.div.Tensor) and isinstance(factor, int | float) and node.args[0] is computed[0]:
            scale = scale * factor if node.target == aten.mul.Tensor else scale / factor
        elif node.target not in (aten.add.Tensor, aten.where.self, *KEEPING):
            return None, scale, chain
        chain.append(node)
        (node,) = computed
    return (node if len(node.users) == 1 else None), scale, chain


def _only_use(node: fx.Node) -> fx.Node | None:
    """Return the only operation that takes a value, beyond operations that keep it as it is; None if there are several."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    return _only_use(user) if user.target in KEEPING else user


def _value(graph: fx.GraphModule, argument: Any) -> Any:
    return constant(graph, argument) if isinstance(argument, fx.Node) else argument


def _call(graph: fx.GraphModule, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Insert an operation, with the shape of its result in its metadata."""
    node = graph.graph.call_function(target, args, kwargs)
    shapes: Any = fx.map_arg((args, kwargs), lambda one: torch.empty(_shape(graph, one), device="meta"))
    node.meta["val"] = target(*shapes[0], **shapes[1])
    return node


def _shape(graph: fx.GraphModule, node: fx.Node) -> torch.Size:
    value: Tensor = node.meta["val"] if "val" in node.meta else constant(graph, node)
    return value.shape
