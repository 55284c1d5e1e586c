"""Rules for operations that treat each frame alike, and for those that only move elements within frames."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.compat.torch_internals import tree_flatten, tree_unflatten
from clipstep.export.lowering.rules.elementwise import ZERO_PRESERVING_UNARY
from clipstep.export.stream.interpreter import Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Rule = Callable[..., Any]
FRAMES_BY_FRAMES = (
    "multiplies frames with other frames: attention over time by hand has no end of its past; "
    "write it as F.scaled_dot_product_attention with a mask of the newest frames"
)
DIFFERS = "has an operand that differs from frame to frame, such as a position added to each frame of the clip: a stream has no last frame"


def pointwise(stream: StreamInterpreter, node: fx.Node, *args: Any, **kwargs: Any) -> Chunk:
    """An operation on elements. Its operands are broadcast, so that axes are counted from the last one."""
    leaves, spec = tree_flatten((args, kwargs))
    chunks = [leaf for leaf in leaves if isinstance(leaf, Chunk)]
    if len({x.axis - x.data.ndim for x in chunks}) > 1:
        raise Unsupported("joins values whose frames lie on different axes")
    from_last = chunks[0].axis - chunks[0].data.ndim
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.ndim >= -from_last and leaf.shape[from_last] > 1:
            raise Unsupported(DIFFERS)
    padded_alone = len(chunks) == 1 and chunks[0].delay < 0 and node.target in ZERO_PRESERVING_UNARY
    first, *others = chunks if padded_alone else stream.align(chunks)
    operands = iter((first, *others))
    args, kwargs = tree_unflatten([next(operands).data if isinstance(leaf, Chunk) else leaf for leaf in leaves], spec)
    target: Any = node.target
    result = target(*args, **kwargs)
    return replace(first, data=result, axis=result.ndim + from_last)


def each_frame(axis_allowed: Callable[[Chunk, Sequence[Any]], bool], reason: str) -> Rule:
    """Return the rule of an operation on one value that keeps the axis of time.

    Args:
        axis_allowed: whether that axis may be where it is, by the value and the other arguments.
        reason: why it may not.
    """

    def rule(stream: StreamInterpreter, node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, Chunk) or any(isinstance(value, Chunk) for value in (*args, *kwargs.values())):
            raise Unsupported("takes the frames as its weights")
        (x,) = stream.align([x])
        if not axis_allowed(x, args):
            raise Unsupported(reason)
        target: Any = node.target
        result = target(x.data, *args, **kwargs)
        if isinstance(result, Tensor):
            return replace(x, data=result)
        return tuple(replace(x, data=part) if index == 0 else part for index, part in enumerate(result))

    return rule


images = each_frame(lambda x, _: x.axis == 0, "takes images, but the frames are not on the batch axis")
norm = each_frame(lambda x, _: x.axis != 1, "takes the frames as channels")
linear = each_frame(lambda x, _: x.axis < x.data.ndim - 1, "mixes the frames: they are on the axis that it multiplies")
layer_norm = each_frame(lambda x, args: x.axis < x.data.ndim - len(args[0]), "normalises over time, that is over frames that are still to come")
group_norm = each_frame(lambda x, _: x.axis == 0, "normalises over time, that is over frames that are still to come")
along_axis = each_frame(lambda x, args: args[0] % x.data.ndim != x.axis, "runs along time, over frames that are still to come")


def rank5_framewise(stream: StreamInterpreter, node: fx.Node, x: Chunk, *args: Any, **kwargs: Any) -> Chunk:
    (x,) = stream.align([x])
    target: Any = node.target
    return replace(x, data=target(x.data, *args, **kwargs))


def matmul(stream: StreamInterpreter, node: fx.Node, a: Any, b: Any) -> Chunk:
    """A matrix product for each frame, or of rows that are frames and a constant matrix."""
    chunks = stream.align([value for value in (a, b) if isinstance(value, Chunk)])
    places = {x.axis - x.data.ndim for x in chunks}
    inner = (isinstance(a, Chunk) and a.axis == a.data.ndim - 1) or (isinstance(b, Chunk) and b.axis == max(b.data.ndim - 2, 0))
    if inner or len(places) > 1 or (len(chunks) == 2 and min(places) > -3):
        raise Unsupported(FRAMES_BY_FRAMES)
    operands = iter(chunks)
    target: Any = node.target
    result = target(*(next(operands).data if isinstance(value, Chunk) else value for value in (a, b)))
    return replace(chunks[0], data=result, axis=result.ndim + places.pop())


def reshape(stream: StreamInterpreter, node: fx.Node, x: Chunk, *_: Any, **__: Any) -> Chunk:
    """Any change of the shape that leaves the axis of time as it is: the elements before it are as many as before."""
    before, after = list(node.all_input_nodes[0].meta["val"].shape), list(node.meta["val"].shape)
    outer, length = math.prod(before[: x.axis]), before[x.axis]
    places = [axis for axis, size in enumerate(after) if size == length and math.prod(after[:axis]) == outer]
    if not places:
        raise Unsupported("joins or splits the axis of time")
    stream.fixed_length = True
    after[places[-1]] = x.frames
    return replace(x, data=x.data.reshape(after), axis=places[-1])


def expand(stream: StreamInterpreter, node: fx.Node, x: Chunk, *_: Any, **__: Any) -> Chunk:
    stream.fixed_length = True
    shape = list(node.meta["val"].shape)
    axis = len(shape) + x.axis - x.data.ndim
    shape[axis] = x.frames
    return replace(x, data=x.data.expand(shape), axis=axis)


def permute(stream: StreamInterpreter, node: fx.Node, x: Chunk, axes: Sequence[int]) -> Chunk:
    return replace(x, data=x.data.permute(tuple(axes)), axis=[axis % x.data.ndim for axis in axes].index(x.axis))


def transpose(stream: StreamInterpreter, node: fx.Node, x: Chunk, first: int, second: int) -> Chunk:
    first, second = first % x.data.ndim, second % x.data.ndim
    return replace(x, data=x.data.transpose(first, second), axis={first: second, second: first}.get(x.axis, x.axis))


def split(stream: StreamInterpreter, node: fx.Node, x: Chunk, sizes: int | Sequence[int], dim: int = 0) -> list[Chunk]:
    if dim % x.data.ndim == x.axis:
        raise Unsupported("takes groups of frames of the clip by their place in it")
    return [replace(x, data=part) for part in torch.split(x.data, sizes if isinstance(sizes, int) else list(sizes), dim)]


def unbind(stream: StreamInterpreter, node: fx.Node, x: Chunk, dim: int = 0) -> list[Chunk]:
    dim %= x.data.ndim
    if dim == x.axis:
        raise Unsupported(BY_NUMBER)
    return [replace(x, data=part, axis=x.axis - (dim < x.axis)) for part in x.data.unbind(dim)]


BY_NUMBER = (
    "takes a frame of the clip by its number, which has no place in a stream, unless it is the last one, or a loop over all frames does the same "
    "with each; give the network its states itself"
)


def cat(stream: StreamInterpreter, node: fx.Node, parts: Sequence[Any], dim: int = 0) -> Chunk:
    """Concatenate values of each frame. A constant that is the same for all frames, such as a class token, may be among them."""
    chunks = stream.align([part for part in parts if isinstance(part, Chunk)])
    (first, *_), rank = chunks, chunks[0].data.ndim
    if dim % rank == first.axis:
        raise Unsupported("concatenates along time")
    if len({x.axis for x in chunks}) > 1:
        raise Unsupported("joins values whose frames lie on different axes")
    operands = iter(chunks)
    data = [next(operands).data if isinstance(part, Chunk) else for_each_frame(stream, node, part, first) for part in parts]
    return replace(first, data=torch.cat(data, dim))


def stack(stream: StreamInterpreter, node: fx.Node, parts: Sequence[Any], dim: int = 0) -> Chunk:
    dim %= parts[0].data.ndim + 1 if isinstance(parts[0], Chunk) else parts[0].ndim + 1
    new = [replace(x, data=x.data.unsqueeze(dim), axis=x.axis + (dim <= x.axis)) if isinstance(x, Chunk) else x.unsqueeze(dim) for x in parts]
    return cat(stream, node, new, dim)


def for_each_frame(stream: StreamInterpreter, node: fx.Node, constant: Tensor, like: Chunk) -> Tensor:
    """Return a constant that is the same for all frames of the clip, for the frames of a step."""
    stream.fixed_length = True
    one = constant.narrow(like.axis, 0, 1)
    if node.name not in stream.plans:
        stream.plans[node.name] = bool((constant == one).all())
    if not stream.plans[node.name]:
        raise Unsupported(DIFFERS)
    return one.expand([like.frames if axis == like.axis else size for axis, size in enumerate(constant.shape)])


def created(_: StreamInterpreter, node: fx.Node, x: Chunk, size: Sequence[int], *value: float, **settings: Any) -> Tensor:
    """A new value of the type of `x`, which does not depend on its numbers."""
    target: Any = node.target
    result: Tensor = target(x.data, size, *value, **settings)
    return result


ON_IMAGES = (
    aten.conv_transpose2d.input,
    aten.adaptive_max_pool2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bicubic2d.vec,
    aten.pixel_shuffle.default,
)
LIKE = (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default)
RULES: dict[Any, Rule] = {
    torch.Tag.pointwise: pointwise,
    **dict.fromkeys((aten.clone.default, aten.alias.default, aten.detach.default, aten._to_copy.default, *LIKE), pointwise),
    **dict.fromkeys(ON_IMAGES, images),
    aten._native_batch_norm_legit_no_training.default: norm,
    aten._assert_tensor_metadata.default: lambda *_, **__: None,
    aten.channel_shuffle.default: rank5_framewise,
    aten.linear.default: linear,
    aten.layer_norm.default: layer_norm,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: group_norm,
    **dict.fromkeys((aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default, aten.cumsum.default), along_axis),
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), matmul),
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.unsqueeze.default), reshape),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), reshape),
    **dict.fromkeys((aten.new_zeros.default, aten.new_ones.default, aten.new_full.default), created),
    aten.expand.default: expand,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split,
    aten.unbind.int: unbind,
    aten.cat.default: cat,
    aten.stack.default: stack,
}
