"""A pass that moves ReLUs to where they cost least."""

import torch
from torch import fx

from clipstep.export.lowering.operators import CONVOLUTIONS
from clipstep.export.lowering.passes.editing import clean

aten = torch.ops.aten


def move_relus(graph: fx.GraphModule) -> None:
    """Move a ReLU before a concatenation, if it can be fused into the operations that give its parts, or else after a max pool, which
    leaves fewer elements.

    Before: `relu(cat([a, b]))`, `max_pool3d(relu(x))`. After: `cat([relu(a), relu(b)])`, `relu(max_pool3d(x))`.
    """
    for relu in graph.graph.find_nodes(op="call_function", target=aten.relu.default):
        source, users = relu.args[0], list(relu.users)
        if source.target == aten.cat.default and len(source.users) == 1 and all(_fuses_relu(part) for part in source.args[0]):
            with graph.graph.inserting_before(source):
                parts = [graph.graph.call_function(aten.relu.default, (part,)) for part in source.args[0]]
            for part, old in zip(parts, source.args[0], strict=True):
                part.meta = dict(old.meta)
            source.args = (parts, *source.args[1:])
            relu.replace_all_uses_with(source)
        elif [user.target for user in users] == [aten.max_pool3d.default] and not _fuses_relu(source):
            (pool,) = users
            pool.replace_input_with(relu, source)
            with graph.graph.inserting_after(pool):
                moved = graph.graph.call_function(aten.relu.default, (pool,))
            moved.meta = dict(pool.meta)
            pool.replace_all_uses_with(moved, delete_user_cb=lambda user, moved=moved: user is not moved)
    clean(graph)


def _fuses_relu(node: fx.Node) -> bool:
    """Whether engines fuse a ReLU into the operation, which has no other user."""
    return node.target in (*CONVOLUTIONS, aten.avg_pool3d.default, aten.max_pool3d.default, aten.add.Tensor) and len(node.users) == 1
