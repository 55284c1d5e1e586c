"""Exact rewritings of the rank-5 graph before it is lowered: constants move into the convolutions before them."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv3d.default, aten.conv3d.padding)


def fold_batch_norms(graph: fx.GraphModule) -> None:
    """Replaces each convolution followed by nothing but a batch norm in eval mode by one convolution."""
    for norm in graph.graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default):
        conv = norm.args[0]
        weight, bias, mean, variance, _, epsilon = norm.args[1:]
        constants = [*conv.args[1:3], weight, bias, mean, variance]
        if conv.target not in CONVOLUTIONS or len(conv.users) > 1 or not all(c is None or c.op == "get_attr" for c in constants):
            continue
        old_weight, old_bias = _conv_constants(graph, conv)
        fused = fuse_conv_bn_weights(
            old_weight, old_bias, _constant(graph, mean), _constant(graph, variance), epsilon, _optional(graph, weight), _optional(graph, bias)
        )
        _set_conv_constants(graph, conv, fused[0].detach(), fused[1].detach())
        (normalised,) = norm.users  # The first of its three results.
        normalised.replace_all_uses_with(conv)
        graph.graph.erase_node(normalised)
        graph.graph.erase_node(norm)
    _clean(graph)


def find_channel_shuffles(graph: fx.GraphModule) -> None:
    """Names what a reshape, a transposition and a reshape do together: a channel shuffle."""
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
    _clean(graph)


def fold_channel_shuffles(graph: fx.GraphModule) -> None:
    """Lets the convolution before a channel shuffle write its channels in shuffled order.

    Between the two only element-wise operations may stand. A grouped convolution becomes a dense one, because its
    shuffled channels are no longer contiguous groups.
    """
    for shuffle in graph.graph.find_nodes(op="call_function", target=aten.channel_shuffle.default):
        source, groups = shuffle.args
        conv = source
        while conv.target == aten.relu.default and len(conv.users) == 1:
            conv = conv.args[0]
        if conv.target not in CONVOLUTIONS or len(conv.users) > 1 or any(c is not None and c.op != "get_attr" for c in conv.args[1:3]):
            continue
        weight, bias = _conv_constants(graph, conv)
        order = torch.arange(len(weight)).reshape(groups, -1).t().flatten()
        conv_groups = conv.args[6] if len(conv.args) > 6 else 1
        _set_conv_constants(graph, conv, dense_weight(weight, conv_groups)[order], None if bias is None else bias[order])
        if conv_groups != 1:
            conv.args = (*conv.args[:6], 1)
        shuffle.replace_all_uses_with(source)
        graph.graph.erase_node(shuffle)
    _clean(graph)


def fold_constants(graph: fx.GraphModule) -> None:
    """Computes once whatever depends on constants alone, such as the slices of a kernel's taps.

    A sliced weight left in the graph costs a factor of fifty in XNNPACK, which wants constants.
    """
    values: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            values[node] = _constant(graph, node)
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            result = node.target(*args, **kwargs)
            if isinstance(result, Tensor):
                values[node] = result.contiguous().clone()
    for index, node in enumerate([node for node in values if node.op == "call_function"]):
        if all(user in values for user in node.users):
            continue
        graph.register_buffer(f"constant_{index}", values[node])
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(f"constant_{index}"))
    for node in reversed(list(values)):
        if not node.users:
            graph.graph.erase_node(node)  # By hand: dead-code elimination keeps what looks as if it wrote in place.
    _clean(graph)
    used = {node.target for node in graph.graph.find_nodes(op="get_attr")}
    for name in [name for name, _ in graph.named_buffers() if name not in used]:
        delattr(graph, name)


def dense_weight(weight: Tensor, groups: int) -> Tensor:
    """A grouped convolution's weight ``(out, in / groups, ...)`` as the dense ``(out, in, ...)`` that does the same."""
    if groups == 1:
        return weight
    out_channels, share = weight.shape[:2]
    dense = weight.new_zeros(out_channels, share * groups, *weight.shape[2:])
    for group, rows in enumerate(torch.arange(out_channels).chunk(groups)):
        dense[rows, group * share : (group + 1) * share] = weight[rows]
    return dense


def _constant(graph: fx.GraphModule, node: Any) -> Tensor:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    tensor: Tensor = value.detach()
    return tensor


def _optional(graph: fx.GraphModule, node: Any) -> Tensor | None:
    return None if node is None else _constant(graph, node)


def _conv_constants(graph: fx.GraphModule, conv: fx.Node) -> tuple[Tensor, Tensor | None]:
    bias = conv.args[2] if len(conv.args) > 2 else None
    return _constant(graph, conv.args[1]), _optional(graph, bias)


def _set_conv_constants(graph: fx.GraphModule, conv: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
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


def _clean(graph: fx.GraphModule) -> None:
    graph.graph.eliminate_dead_code()
    graph.recompile()
