"""A pass after which operators with a temporal axis compute one clip, as their rules expect."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.operators import CONVOLUTIONS, arguments, triple
from clipstep.export.lowering.passes.editing import clean, constant, convolution_constants, results_of, set_convolution_constants
from clipstep.export.lowering.values import TIME

aten = torch.ops.aten
OF_CHANNELS = (
    *(aten.avg_pool3d.default, aten.max_pool3d.default, aten.max_pool3d_with_indices.default, aten.adaptive_max_pool3d.default),
    *(aten.adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d.default),
    *(aten.upsample_nearest3d.vec, aten._upsample_nearest_exact3d.vec, aten.upsample_trilinear3d.vec),
)
"""Operators that compute each channel by itself."""
OF_FRAMES = (aten._native_batch_norm_legit_no_training.default,)
"""Operators that compute each frame by itself."""
OTHERS = (*CONVOLUTIONS, aten.conv_transpose3d.input)


def join_clips(graph: fx.GraphModule) -> None:
    """Make operators on N clips `(N, C, T, H, W)` operators on one.

    What computes each channel by itself, as pools, takes N * C channels. What computes each frame by itself, as batch norms, takes N * T frames.
    Other convolutions are computed for each clip.

    Before: `max_pool3d(x)`. After: `reshape(max_pool3d(reshape(x, (1, N * C, T, H, W))), (N, C, ...))`.
    """
    for node in graph.graph.nodes:
        if node.target not in (*OF_CHANNELS, *OF_FRAMES, *OTHERS) or node.args[0].meta["val"].ndim != 5 or len(node.args[0].meta["val"]) == 1:
            continue
        if node.target in OF_FRAMES or _keeps_frames_apart(graph, node):
            _rearrange(graph, node, in_time=True)
        elif node.target in OF_CHANNELS or _repeat_depthwise_weights(graph, node):
            _rearrange(graph, node, in_time=False)
        else:
            _compute_each(graph, node)
    clean(graph)


def _keeps_frames_apart(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a convolution has one temporal tap, and an output frame for each input frame."""
    if node.target not in CONVOLUTIONS:
        return False
    _, weight, _, stride, padding = arguments(node, None, None, None, (1,), (0,))[:5]
    shape = (constant(graph, weight) if weight.op == "get_attr" else weight.meta["val"]).shape
    return shape[TIME] == 1 and triple(stride)[0] == 1 and (isinstance(padding, str) or triple(padding)[0] == 0)


def _repeat_depthwise_weights(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Give a depthwise convolution of C channels the weights of one of N * C; return False if it is no such convolution."""
    if node.target not in CONVOLUTIONS:
        return False
    x, *weights, stride, padding, dilation, groups = arguments(node, None, None, None, (1,), (0,), (1,), 1)
    clips, channels = x.meta["val"].shape[:2]
    if groups != channels or any(source is not None and source.op != "get_attr" for source in weights):
        return False
    node.args = (x, *weights, stride, padding, dilation, groups * clips)
    weight, bias = convolution_constants(graph, node)
    set_convolution_constants(graph, node, torch.cat([weight] * clips), None if bias is None else torch.cat([bias] * clips))
    return True


def _rearrange(graph: fx.GraphModule, node: Any, *, in_time: bool) -> None:
    """Join the clips of an operator's value in time or as channels, and take those of its results apart again."""
    with graph.graph.inserting_before(node):
        node.args = (_join(graph, node.args[0], in_time), *node.args[1:])
    for result in results_of(node):
        users, value = list(result.users), result.meta["val"]
        clips, channels, frames, *plane = value.shape
        result.meta = {
            **result.meta,
            "val": value.new_empty((1, channels, clips * frames, *plane) if in_time else (1, clips * channels, frames, *plane)),
        }
        with graph.graph.inserting_before(result.next):
            apart = _split(graph, result, value.shape, in_time)
        for user in users:
            user.replace_input_with(result, apart)


def _join(graph: fx.GraphModule, x: fx.Node, in_time: bool) -> fx.Node:
    clips, channels, frames, *plane = x.meta["val"].shape
    if not in_time:
        return _reshape(graph, x, (1, clips * channels, frames, *plane))
    return _reshape(graph, _call(graph, aten.permute.default, x, (1, 0, 2, 3, 4)), (1, channels, clips * frames, *plane))


def _split(graph: fx.GraphModule, x: fx.Node, shape: Sequence[int], in_time: bool) -> fx.Node:
    if not in_time:
        return _reshape(graph, x, shape)
    clips, channels, *others = shape
    return _call(graph, aten.permute.default, _reshape(graph, x, (channels, clips, *others)), (1, 0, 2, 3, 4))


def _compute_each(graph: fx.GraphModule, node: Any) -> None:
    x, value = node.args[0], node.meta["val"]
    with graph.graph.inserting_before(node):
        results = []
        for i in range(len(value)):
            one = graph.graph.call_function(node.target, (_call(graph, aten.slice.Tensor, x, 0, i, i + 1), *node.args[1:]), node.kwargs)
            one.meta = {**node.meta, "val": value[i : i + 1]}
            results.append(one)
        joined = graph.graph.call_function(aten.cat.default, (results,))
    joined.meta = dict(node.meta)
    node.replace_all_uses_with(joined)


def _reshape(graph: fx.GraphModule, x: fx.Node, shape: Sequence[int]) -> fx.Node:
    node = graph.graph.call_function(aten.reshape.default, (x, list(shape)))
    node.meta = {**x.meta, "val": x.meta["val"].reshape(shape)}
    return node


def _call(graph: fx.GraphModule, target: Any, x: fx.Node, *settings: Any) -> fx.Node:
    node = graph.graph.call_function(target, (x, *settings))
    node.meta = {**x.meta, "val": target(x.meta["val"], *settings)}
    return node
