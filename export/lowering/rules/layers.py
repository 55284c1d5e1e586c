"""Linear layers, products of matrices, layer and group norms, interpolation in space."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import Frames, NoRule, Value, frames_of, result, view_of
from clipstep.export.lowering.view import View

aten = torch.ops.aten


def linear(x: Value, weight: Tensor, bias: Tensor | None = None) -> Value | Tensor:
    """On rows."""
    view = view_of(x)
    rows = view.tensor((math.prod(view.shape[:-1]), view.shape[-1]))
    return result(View.of(F.linear(rows, weight, bias), (*view.shape[:-1], len(weight))))


def matmul(x: Value | Tensor, y: Value | Tensor) -> Value | Tensor:
    """The leading axes of both joined, which have to be the same."""
    a, b = view_of(x), view_of(y)
    if a.shape[:-2] != b.shape[:-2]:
        raise NoRule("a product of matrices whose leading axes differ")
    batch = math.prod(a.shape[:-2])
    data = torch.bmm(*(view.tensor((batch, *view.shape[-2:])) for view in (a, b)))
    return result(View.of(data, (*a.shape[:-1], b.shape[-1])))


def attention(query: Value, key: Value, value: Value, *args: Any, **kwargs: Any) -> Value | Tensor:
    """Scaled dot products, the leading axes joined."""
    views = [view_of(v) for v in (query, key, value)]
    if args or set(kwargs) - {"scale"}:
        raise NoRule("attention of rank 5 with a mask")
    q, k, v = (view.tensor((1, math.prod(view.shape[:-2]), *view.shape[-2:])) for view in views)
    data = F.scaled_dot_product_attention(q, k, v, **kwargs)
    return result(View.of(data, (*views[0].shape[:-1], views[2].shape[-1])))


def layer_norm(x: Value, normalised: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, epsilon: float = 1e-5, *_: Any) -> Any:
    """On rows."""
    view, size = view_of(x), math.prod(normalised)
    rows = view.tensor((math.prod(view.shape) // size, size))
    scale, shift = (None if value is None else value.flatten() for value in (weight, bias))
    return result(View.of(F.layer_norm(rows, (size,), scale, shift, epsilon), view.shape))


def group_norm(x: Value, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, epsilon: float = 1e-5, *_: Any) -> Any:
    """Time, rows and columns joined."""
    view = view_of(x)
    data = view.tensor((*view.shape[:2], math.prod(view.shape[2:])))
    return result(View.of(F.group_norm(data, groups, weight, bias, epsilon), view.shape))


def instance_norm(
    x: Value, weight: Tensor | None, bias: Tensor | None, mean: Any, variance: Any, use_input: bool, _: float, epsilon: float, *__: Any
) -> Any:
    """Each channel a group of its own."""
    if not use_input:
        raise NoRule("an instance norm with kept statistics")
    return group_norm(x, x.shape[1], weight, bias, epsilon)


def interpolate(mode: str) -> Callable[..., Frames]:
    """In the plane of each frame; over time only frames as they are, or whole ones again and again."""

    def rule(x: Value, sizes: Sequence[int] | None, *settings: Any) -> Frames:
        *align, factors = settings
        value = frames_of(x)
        frames = len(value.items)
        wanted = sizes[0] if sizes else int(frames * factors[0])
        if wanted != frames and (mode != "nearest" or wanted % frames):
            raise NoRule("interpolation over time")
        where = {"size": tuple(sizes[1:])} if sizes else {"scale_factor": tuple(factors[1:])}
        corners = {"align_corners": align[0]} if align else {}
        planes = value.each(lambda frame: F.interpolate(frame, mode=mode, **where, **corners))
        return Frames(tuple(frame for frame in planes.items for _ in range(wanted // frames)))

    return rule


RULES: dict[Any, Callable[..., Any]] = {
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.scaled_dot_product_attention.default: attention,
    aten.layer_norm.default: layer_norm,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten.upsample_nearest3d.vec: interpolate("nearest"),
    aten.upsample_trilinear3d.vec: interpolate("bilinear"),
}
