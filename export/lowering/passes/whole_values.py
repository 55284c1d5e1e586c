"""A pass for two operators whose meaning the graph decides, and not their arguments alone."""

import operator
from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.passes.editing import clean

aten = torch.ops.aten
POOLS = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}


def simplify_pools_and_strides(graph: fx.GraphModule) -> None:
    """Make a max pool of which the indices are not used a plain one, and strides over a value that lies in order a selection of its elements.

    Before: `getitem(max_pool3d_with_indices(x), 0)`, `as_strided(x, size, stride)`. After: `max_pool3d(x)`,
    `view(index_select(view(x, [-1]), 0, constant), size)`.
    """
    for node in graph.graph.nodes:
        if node.target in POOLS and all(user.target is operator.getitem and user.args[1] == 0 for user in node.users):
            node.target = POOLS[node.target]
            node.meta["val"] = node.meta["val"][0]
            for user in list(node.users):
                user.replace_all_uses_with(node)
        elif node.target == aten.as_strided.default and node.args[0].meta["val"].is_contiguous():
            _select(graph, node)
    clean(graph)


def _select(graph: fx.GraphModule, node: fx.Node) -> None:
    x, size, stride, *rest = tuple[Any, ...](node.args)
    count = x.meta["val"].numel()
    places = torch.arange(count).as_strided(size, stride, *rest).flatten()
    name = f"{node.name}_places"
    graph.register_buffer(name, places)
    with graph.graph.inserting_before(node):
        flat = graph.graph.call_function(aten.view.default, (x, [count]))
        chosen = graph.graph.call_function(aten.index_select.default, (flat, 0, graph.graph.get_attr(name)))
        shaped = graph.graph.call_function(aten.view.default, (chosen, list(size)))
    for new, value in ((flat, x.meta["val"].reshape(-1)), (chosen, node.meta["val"].reshape(-1)), (shaped, node.meta["val"])):
        new.meta = dict(node.meta, val=value)
    node.replace_all_uses_with(shaped)
