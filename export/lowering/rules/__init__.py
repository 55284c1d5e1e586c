"""The rules: a function for each ATen operator, which computes it on values of rank 5 or more with operations on tensors of rank 4 or less.

A rule is called as `rule(profile, *args, **kwargs)`: the engine profile, then the arguments of the original operation, in which a
`clipstep.export.lowering.values.Value` takes the place of each tensor of rank 5 or more. It returns such a value, or a tensor of
rank 4 or less, and raises `clipstep.export.unsupported.Unsupported` for a setting that it does not cover.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch

from clipstep.export.lowering.rules import (
    attention,
    convolution,
    elementwise,
    indexing,
    interpolation,
    layers,
    movement,
    pool_places,
    pooling,
    recurrent,
    reductions,
    transposed,
)
from clipstep.export.lowering.rules.kinds import rule_of_kind

RULES: dict[Any, Callable[..., Any]] = {
    **convolution.RULES,
    **pooling.RULES,
    **elementwise.RULES,
    **movement.RULES,
    **indexing.RULES,
    **pool_places.RULES,
    **reductions.RULES,
    **layers.RULES,
    **attention.RULES,
    **interpolation.RULES,
    **transposed.RULES,
    **recurrent.RULES,
    operator.getitem: lambda profile, values, index: values[index],
}

aten = torch.ops.aten
BY_RULE_ALWAYS = {
    *recurrent.RULES,
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten._unsafe_index_put.default,
    aten.repeat.default,
    aten.roll.default,
    aten.unfold.default,
    aten.diagonal.default,
    aten.channel_shuffle.default,
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.scaled_dot_product_attention.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    aten.stack.default,
    aten.cat.default,
    aten.flip.default,
    aten._to_copy.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.expand.default,
    aten.pad.default,
    aten.avg_pool2d.default,
    aten._adaptive_avg_pool2d.default,
    aten.adaptive_max_pool2d.default,
    aten.max_pool2d_with_indices.default,
    aten.upsample_nearest2d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bicubic2d.vec,
    aten.to.device,
    aten.full_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
}
"""Operators that are lowered by their rules whatever the rank of their values, because engines lack them."""


def rule_of(operator: Any) -> Callable[..., Any] | None:
    """Return the rule for an operator: its own, or that of its kind; None if it has neither."""
    return RULES.get(operator) or rule_of_kind(operator)
