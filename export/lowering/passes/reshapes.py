"""A pass that joins reshapes between which each element is changed by itself."""

import torch
from torch import fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.lowering.passes.editing import clean
from clipstep.export.lowering.rules.kinds import is_pointwise

aten = torch.ops.aten


def join_reshapes(graph: fx.GraphModule) -> None:
    """Reshape once, after what is done to each element, instead of before and after it.

    Before: `relu(x.reshape(8, 16, 256)).reshape(8, 4096)`. After: `relu(x).reshape(8, 4096)`.
    """
    for last in graph.graph.nodes:
        if last.target not in RESHAPES:
            continue
        between: list[fx.Node] = []
        first = last.args[0]
        while _changes_elements_alone(first):
            between.append(first)
            first = first.args[0]
        if not between or first.target not in RESHAPES or len(first.users) > 1:
            continue
        source = first.args[0]
        if source.meta["val"].ndim > 4:
            continue
        between[-1].replace_input_with(first, source)
        for node in between:
            node.meta["val"] = node.meta["val"].reshape(source.meta["val"].shape)
        last.target, last.args, last.kwargs = aten.reshape.default, (between[0], list(last.meta["val"].shape)), {}
    clean(graph)


def _changes_elements_alone(node: fx.Node) -> bool:
    """Whether it is computed from one tensor, element by element, and read once."""
    return is_pointwise(node.target) and node.all_input_nodes == [node.args[0]] and len(node.users) == 1
