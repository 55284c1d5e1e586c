"""Rules for linear layers, matrix products, attention, norms, and spatial interpolation."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import Frames, Value, to_frames, to_lazy, unwrap_low_rank
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def linear(profile: EngineProfile, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value | Tensor:
    """Compute a linear layer, with all axes but the last joined into the rows of a matrix."""
    lazy = to_lazy(x)
    rows = lazy.tensor((math.prod(lazy.shape[:-1]), lazy.shape[-1]))
    return unwrap_low_rank(LazyPermutation.of(F.linear(rows, weight, bias), (*lazy.shape[:-1], len(weight))))


def matmul(profile: EngineProfile, x: Value | Tensor, y: Value | Tensor) -> Value | Tensor:
    """Compute a batched matrix product; the leading axes, which have to be the same, are joined into one."""
    a, b = to_lazy(x), to_lazy(y)
    if a.shape[:-2] != b.shape[:-2]:
        raise Unsupported("a product of matrices whose leading axes differ")
    batch = math.prod(a.shape[:-2])
    data = torch.bmm(*(lazy.tensor((batch, *lazy.shape[-2:])) for lazy in (a, b)))
    return unwrap_low_rank(LazyPermutation.of(data, (*a.shape[:-1], b.shape[-1])))


def attention(profile: EngineProfile, query: Value, key: Value, value: Value, *args: Any, **kwargs: Any) -> Value | Tensor:
    """Compute scaled dot-product attention; the leading axes are joined into one."""
    values = [to_lazy(v) for v in (query, key, value)]
    if args or set(kwargs) - {"scale"}:
        raise Unsupported("attention of rank 5 with a mask")
    q, k, v = (lazy.tensor((1, math.prod(lazy.shape[:-2]), *lazy.shape[-2:])) for lazy in values)
    data = F.scaled_dot_product_attention(q, k, v, **kwargs)
    return unwrap_low_rank(LazyPermutation.of(data, (*values[0].shape[:-1], values[2].shape[-1])))


def layer_norm(
    profile: EngineProfile,
    x: Value,
    normalised: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-5,
    *_: Any,
) -> Any:
    """Compute a layer norm, with all axes but the normalised ones joined into the rows of a matrix."""
    lazy, size = to_lazy(x), math.prod(normalised)
    rows = lazy.tensor((math.prod(lazy.shape) // size, size))
    scale, shift = (None if value is None else value.flatten() for value in (weight, bias))
    return unwrap_low_rank(LazyPermutation.of(F.layer_norm(rows, (size,), scale, shift, epsilon), lazy.shape))


def group_norm(
    profile: EngineProfile, x: Value, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, epsilon: float = 1e-5, *_: Any
) -> Any:
    """Compute a group norm; time, rows and columns are joined into one axis."""
    lazy = to_lazy(x)
    data = lazy.tensor((*lazy.shape[:2], math.prod(lazy.shape[2:])))
    return unwrap_low_rank(LazyPermutation.of(F.group_norm(data, groups, weight, bias, epsilon), lazy.shape))


def instance_norm(
    profile: EngineProfile,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Any,
    variance: Any,
    use_input: bool,
    _: float,
    epsilon: float,
    *__: Any,
) -> Any:
    """Compute an instance norm, which is a group norm with a group for each channel."""
    if not use_input:
        raise Unsupported("an instance norm with kept statistics")
    return group_norm(profile, x, x.shape[1], weight, bias, epsilon)


def interpolate(mode: str) -> Callable[..., Frames]:
    """Return the rule of a spatial interpolation.

    The number of frames must stay the same; with mode "nearest" it may also be multiplied by a whole factor.
    """

    def rule(profile: EngineProfile, x: Value, sizes: Sequence[int] | None, *settings: Any) -> Frames:
        *align, factors = settings
        value = to_frames(x)
        frames = len(value.items)
        wanted = sizes[0] if sizes else int(frames * factors[0])
        if wanted != frames and (mode != "nearest" or wanted % frames):
            raise Unsupported("interpolation over time")
        where = {"size": tuple(sizes[1:])} if sizes else {"scale_factor": tuple(factors[1:])}
        corners = {"align_corners": align[0]} if align else {}
        resized = value.map(lambda frame: F.interpolate(frame, mode=mode, **where, **corners))
        return Frames(tuple(frame for frame in resized.items for _ in range(wanted // frames)))

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
