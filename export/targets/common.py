"""What the writers of graphs share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clipstep.export.choices import IOS_DEFAULT, OPSETS

aten = torch.ops.aten
Pair = int | Sequence[int]
"""A setting of a 2D operation: one number for rows and columns, or one each."""

SAME = (aten.contiguous.default, aten.clone.default, aten.detach.default, aten.alias.default, aten.dropout.default)
"""Operations that give what they get."""


@dataclass(frozen=True)
class Versions:
    """The formats' versions: ONNX's operator set, and the lowest iOS that a Core ML model runs on."""

    opset: int = OPSETS[-1]
    ios: int = IOS_DEFAULT


USUAL = Versions()


class NotTaken(Exception):
    """An operation, or a setting of one, that a writer does not know."""


def pair(values: Pair) -> tuple[int, int]:
    return (values, values) if isinstance(values, int) else (values[0], values[-1])


def limits(low: float | None = None, high: float | None = None, **named: float) -> tuple[float | None, float | None]:
    """Those of ``clamp``, which may be named ``min`` and ``max``."""
    return named.get("min", low), named.get("max", high)
