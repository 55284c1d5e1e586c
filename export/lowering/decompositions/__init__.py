"""Which operators are decomposed into others before the lowering: by PyTorch's own decompositions, or by those here.

A decomposition here is a function of tensors of any rank, like PyTorch's. It returns NotImplemented for a setting that it does not cover, and
the operator then stays whole.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from clipstep.export.lowering.decompositions import indexing, layers, places, reductions, sampling
from clipstep.export.lowering.rules import RULES
from clipstep.export.lowering.rules.formulas import FORMULAS

aten = torch.ops.aten
WHOLE = {
    aten.conv2d.default,
    aten.conv3d.padding,
    aten.conv_transpose2d.input,
    aten.max_pool2d.default,
    aten.hardsigmoid.default,
}
"""Operators on values of rank 4 or less that engines have kernels for; those that have a rule stay whole as well."""
OWN: dict[Any, Callable[..., Any]] = {
    **indexing.DECOMPOSITIONS,
    **layers.DECOMPOSITIONS,
    **places.DECOMPOSITIONS,
    **reductions.DECOMPOSITIONS,
    **sampling.DECOMPOSITIONS,
}


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions of all operators that have neither a rule nor a formula nor a kernel of their own."""
    table = torch.export.default_decompositions()
    whole = {*RULES, *FORMULAS, *WHOLE}
    return {operator: table[operator] for operator in table if operator not in whole} | OWN
