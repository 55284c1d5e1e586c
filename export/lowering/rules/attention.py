"""The rule for scaled dot-product attention, which becomes two matrix products and a softmax."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.elementwise import pointwise
from clipstep.export.lowering.rules.formulas import choose
from clipstep.export.lowering.rules.movement import Operand, cat, slice_tensor
from clipstep.export.lowering.values import expand, to_lazy, unwrap_low_rank
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
HEADS = -3


def attention(
    profile: EngineProfile,
    query: Operand,
    key: Operand,
    value: Operand,
    mask: Operand | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Operand:
    """Compute attention with the leading axes joined: `softmax(q @ k.T * scale + mask) @ v`, in which a mask of booleans is 0 or minus infinity."""
    if dropout:
        raise Unsupported("attention with dropout, which draws random numbers")
    if enable_gqa:
        key, value = (_one_for_each_head(profile, operand, query.shape[HEADS]) for operand in (key, value))
    leading = tuple(np.broadcast_shapes(*(tuple(operand.shape[:-2]) for operand in (query, key, value))))
    rows, columns, width = query.shape[-2], key.shape[-2], value.shape[-1]
    q, k, v = (
        to_lazy(expand(operand, (*leading, *operand.shape[-2:]))).tensor((math.prod(leading), *operand.shape[-2:])) for operand in (query, key, value)
    )
    scores: Any = torch.bmm(q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), k.transpose(1, 2))
    if causal:
        mask = torch.full((rows, columns), -math.inf).triu(1)
    if mask is not None:
        added = pointwise(torch.add)(profile, LazyPermutation.of(scores, (*leading, rows, columns)), _addend(profile, mask))
        scores = to_lazy(added).tensor((math.prod(leading), rows, columns))
    return unwrap_low_rank(LazyPermutation.of(torch.bmm(scores.softmax(2), v), (*leading, rows, width)))


def _addend(profile: EngineProfile, mask: Operand) -> Operand:
    """Return what a mask adds to the scores. True in a mask of booleans stands for a key that takes part."""
    if to_lazy(mask).data.dtype != torch.bool:
        return mask
    return pointwise(lambda allowed: choose(allowed, 0.0, -math.inf))(profile, mask)


def _one_for_each_head(profile: EngineProfile, operand: Operand, heads: int) -> Operand:
    """Repeat the keys or values of a group of heads for each of them."""
    rank, groups = len(operand.shape), operand.shape[HEADS]
    slices = [slice_tensor(profile, operand, rank + HEADS, head * groups // heads, head * groups // heads + 1) for head in range(heads)]
    return cat(profile, slices, rank + HEADS)


RULES: dict[Any, Callable[..., Any]] = {aten.scaled_dot_product_attention.default: attention}
