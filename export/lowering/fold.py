"""Exact rewritings of the rank-5 graph before it is lowered: constants move into the convolutions before them."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from clipstep.export.lowering.rules.convolution import triple

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


def move_channel_shuffles(graph: fx.GraphModule) -> None:
    """Puts a channel shuffle behind the depthwise convolution that follows it, whose kernels are shuffled back: with a stride,
    fewer numbers are left to move."""
    for shuffle in graph.graph.find_nodes(op="call_function", target=aten.channel_shuffle.default):
        source, groups = shuffle.args
        (conv, *others) = shuffle.users
        channels = shuffle.meta["val"].shape[1]
        if others or conv.target not in CONVOLUTIONS or len(conv.args) < 7 or conv.args[6] != channels:
            continue
        weight, bias = _conv_constants(graph, conv)
        if len(weight) != channels or any(c is not None and c.op != "get_attr" for c in conv.args[1:3]):
            continue
        back = torch.arange(channels).reshape(-1, groups).t().flatten()
        _set_conv_constants(graph, conv, weight[back], None if bias is None else bias[back])
        conv.replace_input_with(shuffle, source)
        with graph.graph.inserting_after(conv):
            moved = graph.graph.call_function(aten.channel_shuffle.default, (conv, groups))
        moved.meta = dict(conv.meta)
        conv.replace_all_uses_with(moved, delete_user_cb=lambda user, moved=moved: user is not moved)
        graph.graph.erase_node(shuffle)
    _clean(graph)


def fold_channel_shuffles(graph: fx.GraphModule) -> None:
    """Lets the convolution before a channel shuffle write its channels in shuffled order.

    Between the two only element-wise operations may stand. Not a grouped one, whose shuffled channels would not be
    contiguous groups.
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
        weight, bias = _conv_constants(graph, conv)
        order = torch.arange(len(weight)).reshape(groups, -1).t().flatten()
        _set_conv_constants(graph, conv, weight[order], None if bias is None else bias[order])
        shuffle.replace_all_uses_with(source)
        graph.graph.erase_node(shuffle)
    _clean(graph)


def fold_paddings(graph: fx.GraphModule) -> None:
    """Lets an average pool without padding of its own do the padding with zeros before it, and count it."""
    for pool in graph.graph.find_nodes(op="call_function", target=aten.avg_pool3d.default):
        padded = pool.args[0]
        given, defaults = list(pool.args[1:]), [None, (), (0,), False, True, None]
        kernel, stride, padding, ceil_mode, _, divisor = given + defaults[len(given) :]
        if padded.target not in (aten.pad.default, aten.constant_pad_nd.default) or ceil_mode or any(triple(padding)):
            continue
        source, amounts, *rest = padded.args
        amounts = (*amounts, *[0] * (6 - len(amounts)))
        pairs = [amounts[i : i + 2] for i in (4, 2, 0)]
        if len(amounts) > 6 or any(a != b or a < 0 for a, b in pairs) or any(value not in ("constant", None, 0) for value in rest):
            continue
        pool.args = (source, kernel, stride or kernel, [a for a, _ in pairs], False, True, divisor)
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


def merge_same(graph: fx.GraphModule) -> None:
    """One operation, or one constant, where several are the same: such as a frame that is under two taps.

    Not all parts of a concatenation: of one value alone XNNPACK takes none.
    """
    known: dict[Any, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = _constant(graph, node)
            key: Any = (tuple(value.shape), value.dtype, value.numpy().tobytes())
        elif node.op == "call_function":
            key = (node.target, repr(node.args), repr(node.kwargs))
        else:
            continue
        same = known.setdefault(key, node)
        if same is not node and not any(user.target == aten.cat.default and {*user.all_input_nodes} <= {node, same} for user in node.users):
            node.replace_all_uses_with(same)
            graph.graph.erase_node(node)
    _clean(graph)
    used = {node.target for node in graph.graph.find_nodes(op="get_attr")}
    for name in [name for name, _ in (*graph.named_buffers(), *graph.named_parameters()) if name not in used]:
        delattr(graph, name)


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
