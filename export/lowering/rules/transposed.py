"""The rule for a transposed 3D convolution."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.operators import triple
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import Frames, Value, temporal_taps, to_frames

aten = torch.ops.aten


def transposed_convolution(
    profile: EngineProfile,
    x: Value,
    weight: Tensor | Value,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Frames:
    """For each output frame the sum of a transposed 2D convolution for each pair of a temporal tap and an input frame that reach it.

    `weight` is `(C, O / groups, kT, kH, kW)`; input frame t reaches output frame `t * stride - padding + tap * dilation`.
    """
    (step, *strides), (before, *paddings), (extra, *extras), (spacing, *dilations) = map(triple, (stride, padding, output_padding, dilation))
    frames, kernels = to_frames(x).tensors, temporal_taps(weight)
    count = (len(frames) - 1) * step - 2 * before + spacing * (len(kernels) - 1) + extra + 1

    def spread(frame: Tensor, tap: int, shift: Tensor | None) -> Tensor:
        return F.conv_transpose2d(frame, kernels[tap], shift, strides, paddings, extras, groups, dilations)

    result = []
    for t in range(count):
        pairs = [(tap, source) for tap in range(len(kernels)) for source in range(len(frames)) if source * step - before + tap * spacing == t]
        parts = [spread(frames[source], tap, bias if i == 0 else None) for i, (tap, source) in enumerate(pairs)]
        result.append(sum(parts[1:], parts[0]) if parts else spread(torch.zeros_like(frames[0]), 0, bias))
    return Frames(tuple(result))


RULES: dict[Any, Callable[..., Any]] = {aten.conv_transpose3d.input: transposed_convolution}
