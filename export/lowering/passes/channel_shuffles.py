"""Passes that find channel shuffles, move them to where there are fewer elements, and fold them into convolutions."""

import torch
from torch import fx

from clipstep.export.lowering.operators import CONVOLUTIONS
from clipstep.export.lowering.passes.editing import clean, convolution_constants, set_convolution_constants

aten = torch.ops.aten


def find_channel_shuffles(graph: fx.GraphModule) -> None:
    """Replace a reshape, a transposition and a reshape that together are a channel shuffle by that operator.

    Before: `x.view(1, g, c, T, H, W).transpose(1, 2).reshape(x.shape)`. After: `channel_shuffle(x, g)`.
    """
    views = (aten.view.default, aten._unsafe_view.default)
    for last in [node for node in graph.graph.nodes if node.target in views]:
        moved = last.args[0]
        if moved.target == aten.clone.default:
            moved = moved.args[0]
        if moved.target not in (aten.transpose.int, aten.permute.default):
            continue
        first = moved.args[0]
        if first.target != aten.view.default or len(first.args[0].meta["val"].shape) != 5:
            continue
        before, split, after = (tuple(node.meta["val"].shape) for node in (first.args[0], first, last))
        swapped = {*moved.args[1:]} == {1, 2} if moved.target == aten.transpose.int else list(moved.args[1]) == [0, 2, 1, 3, 4, 5]
        if before == after and len(split) == 6 and split[3:] == before[2:] and swapped:
            with graph.graph.inserting_before(last):
                shuffle = graph.graph.call_function(aten.channel_shuffle.default, (first.args[0], split[1]))
            shuffle.meta = last.meta
            last.replace_all_uses_with(shuffle)
    clean(graph)


def sink_channel_shuffles(graph: fx.GraphModule) -> None:
    """Move a channel shuffle after the depthwise convolution that follows it: if that has a stride, fewer elements are shuffled.

    Before: `conv3d(channel_shuffle(x, g), w)`. After: `channel_shuffle(conv3d(x, w'), g)`, with the kernels in the opposite order.
    """
    for shuffle in graph.graph.find_nodes(op="call_function", target=aten.channel_shuffle.default):
        source, groups = shuffle.args
        (conv, *others) = shuffle.users
        channels = shuffle.meta["val"].shape[1]
        if others or conv.target not in CONVOLUTIONS or len(conv.args) < 7 or conv.args[6] != channels:
            continue
        weight, bias = convolution_constants(graph, conv)
        if len(weight) != channels or any(c is not None and c.op != "get_attr" for c in conv.args[1:3]):
            continue
        back = torch.arange(channels).reshape(-1, groups).t().flatten()
        set_convolution_constants(graph, conv, weight[back], None if bias is None else bias[back])
        conv.replace_input_with(shuffle, source)
        with graph.graph.inserting_after(conv):
            moved = graph.graph.call_function(aten.channel_shuffle.default, (conv, groups))
        moved.meta = dict(conv.meta)
        conv.replace_all_uses_with(moved, delete_user_cb=lambda user, moved=moved: user is not moved)
        graph.graph.erase_node(shuffle)
    clean(graph)


def fold_channel_shuffles(graph: fx.GraphModule) -> None:
    """Fold a channel shuffle into the convolution before it, whose output channels are permuted. ReLUs may stand between the two.

    A grouped convolution is left alone: its permuted channels would not be contiguous groups.
    Before: `channel_shuffle(relu(conv3d(x, w)), g)`. After: `relu(conv3d(x, w'))`.
    """
    for shuffle in graph.graph.find_nodes(op="call_function", target=aten.channel_shuffle.default):
        source, groups = shuffle.args
        conv = source
        while conv.target == aten.relu.default and len(conv.users) == 1:
            conv = conv.args[0]
        if conv.target not in CONVOLUTIONS or len(conv.users) > 1 or any(c is not None and c.op != "get_attr" for c in conv.args[1:3]):
            continue
        if len(conv.args) > 6 and conv.args[6] > 1:
            continue
        weight, bias = convolution_constants(graph, conv)
        order = torch.arange(len(weight)).reshape(groups, -1).t().flatten()
        set_convolution_constants(graph, conv, weight[order], None if bias is None else bias[order])
        shuffle.replace_all_uses_with(source)
        graph.graph.erase_node(shuffle)
    clean(graph)
