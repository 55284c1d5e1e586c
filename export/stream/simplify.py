"""Passes over a clip network's graph after which the rules find the axis of time, and attention written by hand."""

import math
from dataclasses import dataclass
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
        shape, weighted = softmax.meta["val"].shape, _only_use(softmax)
        scores = _scores(softmax.args[0])
        if scores is None or weighted is None or weighted.target not in PRODUCTS or softmax.args[1] % len(shape) != len(shape) - 1 or len(shape) < 3:
            continue
        weights: Any = weighted.args[0]
        if weights is softmax or weights.target in KEEPING:
            _replace(graph, scores, softmax, weighted)
    clean(graph)


@dataclass(frozen=True)
class _Scores:
    """The scores of attention: a product of queries and keys, and what is done with it."""

    product: fx.Node
    scale: float
    """The factor that the product is multiplied by."""
    operations: tuple[fx.Node, ...]
    """Operations on the product with constants: scales, masks. The last one is first."""

    def of_zeros(self, graph: fx.GraphModule) -> Tensor:
        """Return what the operations make of products of zero: what they add to the scaled product."""
        result = torch.zeros(self.product.meta["val"].shape[-2:])
        for node, source in zip(self.operations[::-1], (self.product, *self.operations[:0:-1]), strict=True):
            target: Any = node.target
            result = target(*(result if arg is source else _value(graph, arg) for arg in node.args))
        return result


def _scores(node: Any) -> _Scores | None:
    """Follow a value back to the product that it comes from; None if other operations are between, or their results are used elsewhere too."""
    scale, operations = 1.0, list[fx.Node]()
    while node.target not in PRODUCTS:
        computed = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op != "get_attr"]
        if len(computed) != 1 or len(node.users) != 1:
            return None
        (source,), factor = computed, node.args[1] if len(node.args) > 1 else None
        if node.target in (aten.mul.Tensor, aten.div.Tensor) and isinstance(factor, int | float) and node.args[0] is source:
            scale = scale * factor if node.target == aten.mul.Tensor else scale / factor
        elif node.target not in (aten.add.Tensor, aten.where.self, *KEEPING) or node.kwargs:
            return None
        operations.append(node)
        node = source
    return _Scores(node, scale, tuple(operations)) if len(node.users) == 1 else None


def _replace(graph: fx.GraphModule, scores: _Scores, softmax: fx.Node, weighted: fx.Node) -> None:
    mask = scores.of_zeros(graph)
    with graph.graph.inserting_before(weighted):
        given = [scores.product.args[0], _call(graph, aten.transpose.int, scores.product.args[1], -2, -1), weighted.args[1]]
        if mask.any():
            graph.register_buffer(f"{softmax.name}_mask", mask)
            given.append(graph.graph.get_attr(f"{softmax.name}_mask"))
        weighted.replace_all_uses_with(_call(graph, aten.scaled_dot_product_attention.default, *given, scale=scores.scale))


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
