"""Which operators are decomposed into others before the lowering, by PyTorch's own decompositions."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from clipstep.export.lowering.rules import RULES

aten = torch.ops.aten
WHOLE = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.max_pool2d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_bicubic2d.vec,
}
"""Operators on values of rank 4 or less that engines have kernels for; those that have a rule stay whole as well."""


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return PyTorch's decompositions of all operators that have no rule and no kernel of their own."""
    table = torch.export.default_decompositions()
    return {operator: table[operator] for operator in table if operator not in RULES and operator not in WHOLE}
