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
        padded, kernel, stride, padding, ceil_mode, _, divisor = _arguments(pool, None, None, (), (0,), False, True, None)
        if padded.target not in (aten.pad.default, aten.constant_pad_nd.default) or ceil_mode or any(triple(padding)):
            continue
        source, amounts, *rest = padded.args
        amounts = (*amounts, *[0] * (6 - len(amounts)))
        pairs = [amounts[i : i + 2] for i in (4, 2, 0)]
        if len(amounts) > 6 or any(a != b or a < 0 for a, b in pairs) or any(value not in ("constant", None, 0) for value in rest):
            continue
        pool.args = (source, kernel, stride or kernel, [a for a, _ in pairs], False, True, divisor)
    _clean(graph)


def fold_time_steps(graph: fx.GraphModule) -> None:
    """Lets a convolution of every n-th frame read all of them, with n times the stride, dilation and padding in time: convolutions of
    the same frames at several rates then have the same input."""
    for conv in graph.graph.find_nodes(op="call_function", target=aten.conv3d.default):
        steps, weight = conv.args[0], conv.args[1]
        if steps.target != aten.slice.Tensor or weight.op != "get_attr":
            continue
        source, dim, start, _, step = _arguments(steps, None, 0, None, None, 1)
        length = source.meta["val"].shape[2]
        if dim != 2 or start or step == 1 or steps.meta["val"].shape[2] != -(-length // step):
            continue
        _, _, bias, *settings, groups = _arguments(conv, None, None, None, (1,), (0,), (1,), 1)
        stride, padding, dilation = ((values[0] * step, *values[1:]) for values in map(triple, settings))
        span = dilation[0] * (_constant(graph, weight).shape[2] - 1)
        if (length + 2 * padding[0] - span - 1) // stride[0] + 1 == conv.meta["val"].shape[2]:
            conv.args = (source, weight, bias, stride, padding, dilation, groups)
    _clean(graph)


def move_relus(graph: fx.GraphModule) -> None:
    """Puts a ReLU where it costs least: on the parts of a concatenation, whose operations can take it in, and otherwise behind a max
    pool, where fewer numbers are left."""
    for relu in graph.graph.find_nodes(op="call_function", target=aten.relu.default):
        source, users = relu.args[0], list(relu.users)
        if source.target == aten.cat.default and len(source.users) == 1 and all(_takes_relu(part) for part in source.args[0]):
            with graph.graph.inserting_before(source):
                parts = [graph.graph.call_function(aten.relu.default, (part,)) for part in source.args[0]]
            for part, old in zip(parts, source.args[0], strict=True):
                part.meta = dict(old.meta)
            source.args = (parts, *source.args[1:])
            relu.replace_all_uses_with(source)
        elif [user.target for user in users] == [aten.max_pool3d.default] and not _takes_relu(source):
            (pool,) = users
            pool.replace_input_with(relu, source)
            with graph.graph.inserting_after(pool):
                moved = graph.graph.call_function(aten.relu.default, (pool,))
            moved.meta = dict(pool.meta)
            pool.replace_all_uses_with(moved, delete_user_cb=lambda user, moved=moved: user is not moved)
    _clean(graph)


def _takes_relu(node: fx.Node) -> bool:
    return node.target in (*CONVOLUTIONS, aten.avg_pool3d.default, aten.max_pool3d.default, aten.add.Tensor) and len(node.users) == 1


def fold_scales(graph: fx.GraphModule) -> None:
    """Lets the convolutions of ``x * scale + shift`` have the scale, one number a channel, in their weights: they get
    ``x + shift / scale``. Only moves may stand between."""
    for shifted in graph.graph.find_nodes(op="call_function", target=aten.add.Tensor):
        scaled, shift = shifted.args
        if not isinstance(scaled, fx.Node) or scaled.target != aten.mul.Tensor or len(scaled.users) > 1 or shifted.kwargs:
            continue
        source, factor = scaled.args
        if any(not isinstance(node, fx.Node) or node.op != "get_attr" for node in (factor, shift)):
            continue
        numbers = _constant(graph, factor)
        convs = _scales_of_convolutions(graph, shifted, numbers)
        if convs is None or bool((numbers == 0).any()):
            continue
        for conv, scale in convs.items():
            weight, bias = _conv_constants(graph, conv)
            _set_conv_constants(graph, conv, weight * scale, bias)
        graph.register_buffer(f"{shifted.name}_shift", _constant(graph, shift) / numbers)
        with graph.graph.inserting_before(shifted):
            shifted.args = (source, graph.graph.get_attr(f"{shifted.name}_shift"))
        graph.graph.erase_node(scaled)
    _clean(graph)


def _scales_of_convolutions(graph: fx.GraphModule, scaled: fx.Node, scale: Tensor) -> dict[fx.Node, Tensor] | None:
    """The scale of each channel of a scaled value where convolutions get it, if they alone do and each channel has one."""
    moves = (aten.view.default, aten.permute.default, aten.transpose.int, aten.clone.default, aten.alias.default, aten.slice.Tensor)
    moved = {scaled: scale.expand(scaled.meta["val"].shape)}
    convs: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        if not any(used in moved for used in node.all_input_nodes):
            continue
        if node.target in moves:
            moved[node] = node.target(*fx.map_arg(node.args, moved.__getitem__))
        elif node.target in CONVOLUTIONS and node.args[1].op == "get_attr" and (len(node.args) < 7 or node.args[6] == 1):
            everywhere = moved[node.args[0]]
            convs[node] = everywhere[:1, :, :1, :1, :1]
            if not torch.equal(convs[node].expand(everywhere.shape), everywhere):
                return None
        else:
            return None
    return convs


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


def _arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """All arguments of an operation, of which torch.export leaves out the last ones that have their defaults."""
    return [*node.args, *defaults[len(node.args) :]]


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
