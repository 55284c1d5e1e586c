"""A pass that folds the scale of a network's input, its normalisation, into the weights of its first convolutions."""

import torch
from torch import Tensor, fx

from clipstep.export.lowering.operators import CONVOLUTIONS
from clipstep.export.lowering.passes.editing import clean, constant, convolution_constants, set_convolution_constants

aten = torch.ops.aten


def fold_scales(graph: fx.GraphModule) -> None:
    """Fold the scale of `x * scale + shift`, one number a channel, into the weights of the convolutions that read it.

    They then read `x + shift / scale`. Only reshapes, permutations and slices may stand between.
    """
    for shifted in graph.graph.find_nodes(op="call_function", target=aten.add.Tensor):
        scaled, shift = shifted.args
        if not isinstance(scaled, fx.Node) or scaled.target != aten.mul.Tensor or len(scaled.users) > 1 or shifted.kwargs:
            continue
        source, factor = scaled.args
        if any(not isinstance(node, fx.Node) or node.op != "get_attr" for node in (factor, shift)):
            continue
        numbers = constant(graph, factor)
        convs = _scales_of_convolutions(graph, shifted, numbers)
        if convs is None or bool((numbers == 0).any()):
            continue
        for conv, scale in convs.items():
            weight, bias = convolution_constants(graph, conv)
            set_convolution_constants(graph, conv, weight * scale, bias)
        graph.register_buffer(f"{shifted.name}_shift", constant(graph, shift) / numbers)
        with graph.graph.inserting_before(shifted):
            shifted.args = (source, graph.graph.get_attr(f"{shifted.name}_shift"))
        graph.graph.erase_node(scaled)
    clean(graph)


def _scales_of_convolutions(graph: fx.GraphModule, scaled: fx.Node, scale: Tensor) -> dict[fx.Node, Tensor] | None:
    """Return for each convolution that reads the scaled value the scale of each of its input channels; None if anything else reads it, or if a
    channel has several scales."""
    moves = (aten.view.default, aten.permute.default, aten.transpose.int, aten.clone.default, aten.alias.default, aten.slice.Tensor)
    moved = {scaled: scale.expand(scaled.meta["val"].shape).contiguous()}
    convs: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        if not any(used in moved for used in node.all_input_nodes):
            continue
        if node.target in moves:
            moved[node] = node.target(*fx.map_arg(node.args, moved.__getitem__)).contiguous()  # A view of it may follow.
        elif node.target in CONVOLUTIONS and node.args[1].op == "get_attr" and (len(node.args) < 7 or node.args[6] == 1):
            everywhere = moved[node.args[0]]
            convs[node] = everywhere[:1, :, :1, :1, :1]
            if not torch.equal(convs[node].expand(everywhere.shape), everywhere):
                return None
        else:
            return None
    return convs
