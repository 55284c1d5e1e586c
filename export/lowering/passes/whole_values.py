"""Passes for operators whose meaning the graph decides, and not their arguments alone."""

import operator
from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.passes.editing import clean, results_of

aten = torch.ops.aten
POOLS = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}
BY_PASS = {*POOLS, aten.as_strided.default}
"""The operators that `simplify_pools_and_strides` replaces."""
BATCHED_RANK = {
    **dict.fromkeys((aten.conv2d.default, aten.conv_transpose2d.input, aten.avg_pool2d.default, aten.max_pool2d.default), 4),
    **dict.fromkeys((aten._adaptive_avg_pool2d.default, aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec), 4),
    **dict.fromkeys((aten.conv3d.default, aten.conv3d.padding, aten.conv_transpose3d.input, aten.avg_pool3d.default, aten.max_pool3d.default), 5),
    **dict.fromkeys((aten.max_pool2d_with_indices.default, aten.adaptive_max_pool2d.default), 4),
    **dict.fromkeys((aten.max_pool3d_with_indices.default, aten.adaptive_avg_pool3d.default, aten.adaptive_max_pool3d.default), 5),
}
"""The rank of a batch of values for each operator that also takes a single value, of one rank less."""


def add_batch_axes(graph: fx.GraphModule) -> None:
    """Give a single value an axis for the batch, which engines expect.

    Before: `conv2d(x, weight)` of `x` `(C, H, W)`. After: `squeeze(conv2d(unsqueeze(x, 0), weight), 0)`.
    """
    for node in graph.graph.nodes:
        if node.target not in BATCHED_RANK or node.args[0].meta["val"].ndim == BATCHED_RANK[node.target]:
            continue
        x = node.args[0]
        with graph.graph.inserting_before(node):
            batch = graph.graph.call_function(aten.unsqueeze.default, (x, 0))
        batch.meta = dict(node.meta, val=x.meta["val"].unsqueeze(0))
        for result in results_of(node):
            single, users = result.meta["val"], list(result.users)
            with graph.graph.inserting_after(result):
                squeezed = graph.graph.call_function(aten.squeeze.dim, (result, 0))
            squeezed.meta, result.meta = dict(result.meta), dict(result.meta, val=single.unsqueeze(0))
            for user in users:
                user.replace_input_with(result, squeezed)
        node.args = (batch, *node.args[1:])
    clean(graph)


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
