"""Passes that fold strided slices and paddings into the settings of the convolutions and pools after them."""

import torch
from torch import fx

from clipstep.export.lowering.operators import arguments, triple
from clipstep.export.lowering.passes.editing import clean, constant

aten = torch.ops.aten


def fold_paddings(graph: fx.GraphModule) -> None:
    """Fold a padding with zeros into the average pool after it, if the pool has no padding of its own. The pool then counts the padding's zeros.

    Before: `avg_pool3d(pad(x, [1, 1, 1, 1, 1, 1]), 3)`. After: `avg_pool3d(x, 3, padding=1)`.
    """
    for pool in graph.graph.find_nodes(op="call_function", target=aten.avg_pool3d.default):
        padded, kernel, stride, padding, ceil_mode, _, divisor = arguments(pool, None, None, (), (0,), False, True, None)
        if padded.target not in (aten.pad.default, aten.constant_pad_nd.default) or ceil_mode or any(triple(padding)):
            continue
        source, amounts, *rest = padded.args
        amounts = (*amounts, *[0] * (6 - len(amounts)))
        pairs = [amounts[i : i + 2] for i in (4, 2, 0)]
        if len(amounts) > 6 or any(a != b or a < 0 for a, b in pairs) or any(value not in ("constant", None, 0) for value in rest):
            continue
        pool.args = (source, kernel, stride or kernel, [a for a, _ in pairs], False, True, divisor)
    clean(graph)


def fold_temporal_strides(graph: fx.GraphModule) -> None:
    """Fold a slice of every n-th frame into the convolution after it, with n times the stride, dilation and padding in time.

    Convolutions of one video at several frame rates then have the same input, and share its im2col matrices.
    Before: `conv3d(x[:, :, ::2], w)`. After: `conv3d(x, w, stride=[2, 1, 1], dilation=[2, 1, 1])`.
    """
    for conv in graph.graph.find_nodes(op="call_function", target=aten.conv3d.default):
        steps, weight = conv.args[0], conv.args[1]
        if steps.target != aten.slice.Tensor or weight.op != "get_attr":
            continue
        source, dim, start, _, step = arguments(steps, None, 0, None, None, 1)
        length = source.meta["val"].shape[2]
        if dim != 2 or start or step == 1 or steps.meta["val"].shape[2] != -(-length // step):
            continue
        _, _, bias, *settings, groups = arguments(conv, None, None, None, (1,), (0,), (1,), 1)
        stride, padding, dilation = ((values[0] * step, *values[1:]) for values in map(triple, settings))
        span = dilation[0] * (constant(graph, weight).shape[2] - 1)
        if (length + 2 * padding[0] - span - 1) // stride[0] + 1 == conv.meta["val"].shape[2]:
            conv.args = (source, weight, bias, stride, padding, dilation, groups)
    clean(graph)
