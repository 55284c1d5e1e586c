"""A pass that folds batch norms in eval mode into the convolutions before them."""

import torch
from torch import fx
from torch.nn.utils import fuse_conv_bn_weights

from clipstep.export.lowering.operators import CONVOLUTIONS
from clipstep.export.lowering.passes.editing import clean, constant, convolution_constants, optional_constant, set_convolution_constants

aten = torch.ops.aten
FOLDABLE = (*CONVOLUTIONS, aten.conv2d.default, aten.conv2d.padding, aten.conv1d.default, aten.conv1d.padding)


def fold_batch_norms(graph: fx.GraphModule) -> None:
    """Fold each batch norm in eval mode that is the only user of a convolution into it.

    Before: `batch_norm(conv3d(x, w))`. After: `conv3d(x, w', b')`.
    """
    for norm in graph.graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default):
        conv = norm.args[0]
        weight, bias, mean, variance, _, epsilon = norm.args[1:]
        constants = [*conv.args[1:3], weight, bias, mean, variance]
        if conv.target not in FOLDABLE or len(conv.users) > 1 or not all(c is None or c.op == "get_attr" for c in constants):
            continue
        old_weight, old_bias = convolution_constants(graph, conv)
        fused = fuse_conv_bn_weights(
            old_weight,
            old_bias,
            constant(graph, mean),
            constant(graph, variance),
            epsilon,
            optional_constant(graph, weight),
            optional_constant(graph, bias),
        )
        set_convolution_constants(graph, conv, fused[0].detach(), fused[1].detach())
        (normalised,) = norm.users  # The first of its three results.
        normalised.replace_all_uses_with(conv)
        graph.graph.erase_node(normalised)
        graph.graph.erase_node(norm)
    clean(graph)
