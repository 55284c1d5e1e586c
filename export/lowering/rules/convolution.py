"""Rules for 3D convolutions, each written by the first of `STRATEGIES` that applies, and for batch norms."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.operators import Triple, named_padding, triple
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.rules.strategies import strategy_for
from clipstep.export.lowering.values import Frames, Value, to_frames

aten = torch.ops.aten


def conv3d(profile: EngineProfile, *args: Any, **kwargs: Any) -> Value:
    """Write a convolution by the first strategy that applies; the arguments are those of `convolution_of`."""
    convolution = convolution_of(*args, **kwargs)
    return strategy_for(profile, convolution).lower(profile, convolution)


def convolution_of(
    x: Value,
    weight: Tensor | Value,
    bias: Tensor | None = None,
    stride: Triple = (1,),
    padding: Triple | str = (0,),
    dilation: Triple = (1,),
    groups: int = 1,
) -> Convolution:
    """Return the convolution of the arguments of `aten.conv3d`: `padding` is a number for each axis, "valid" or "same"."""
    if isinstance(padding, str):
        x, padding = _explicit_padding(x, weight, padding, triple(dilation))
    return Convolution(x, weight, bias, triple(stride), triple(padding), triple(dilation), groups)


def _explicit_padding(x: Value, weight: Tensor | Value, padding: str, dilation: Triple) -> tuple[Value, Triple]:
    """Return the input, and the padding as a number for each axis.

    If "same" needs more padding after an axis than before it, the extra row, column or frame of zeros is appended to the input.
    """
    value, sides = to_frames(x), named_padding(padding, weight.shape[2:], dilation)
    before, more = [first for first, _ in sides], [last - first for first, last in sides]
    if any(more[1:]):
        value = value.map_zero_preserving(lambda frame: F.pad(frame, (0, more[2], 0, more[1])))
    return Frames((*value.items, *[None] * more[0])), before


def batch_norm(
    profile: EngineProfile,
    x: Value | Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    epsilon: float,
) -> tuple[Frames | Tensor, None, None]:
    """A batch norm in eval mode, as a depthwise 1x1 convolution; as a product and a sum on values of rank 4 or less. One that follows a convolution
    was folded by a pass."""
    scale = (variance + epsilon).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    if isinstance(x, Tensor):
        channels_of_x = [-1, *[1] * (x.ndim - 2)]
        return x * scale.reshape(channels_of_x) + shift.reshape(channels_of_x), None, None
    channels = len(scale)
    return to_frames(x).map(lambda frame: F.conv2d(frame, scale.reshape(-1, 1, 1, 1), shift, groups=channels)), None, None


RULES: dict[Any, Callable[..., Any]] = {
    aten.conv3d.default: conv3d,
    aten.conv3d.padding: conv3d,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
}
