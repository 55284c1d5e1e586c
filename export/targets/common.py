"""What the writers of graphs share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clipstep.export.choices import IOS_DEFAULT, OPSETS

aten = torch.ops.aten
Pair = int | Sequence[int]
"""A setting of a 2D operation: one number for rows and columns, or one each."""

IDENTITY = (aten.contiguous.default, aten.clone.default, aten.detach.default, aten.alias.default, aten.dropout.default)
"""Operators that return their input, in a graph for inference."""


@dataclass(frozen=True)
class Versions:
    """The formats' versions: ONNX's operator set, and the lowest iOS that a Core ML model runs on."""

    opset: int = OPSETS[-1]
    ios: int = IOS_DEFAULT


USUAL = Versions()


def pair(values: Pair) -> tuple[int, int]:
    return (values, values) if isinstance(values, int) else (values[0], values[-1])


def clamp_bounds(low: float | None = None, high: float | None = None, **named: float) -> tuple[float | None, float | None]:
    """The bounds of ``aten.clamp``, positional or named ``min`` and ``max``; None for no bound."""
    return named.get("min", low), named.get("max", high)
