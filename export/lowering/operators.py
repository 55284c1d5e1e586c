"""ATen operators and their settings, as several passes, rules and writers need to know them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
Triple = Sequence[int]
"""A setting of a 3D operator: time, rows, columns."""
CONVOLUTIONS = (aten.conv3d.default, aten.conv3d.padding)
RESHAPES = (
    aten.reshape.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
"""Operators that change nothing but the shape, which their result's metadata gives."""
ELEMENTWISE = (aten.to.dtype, aten._to_copy.default, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
"""Elementwise operators on one value, alone or with constants, that engines do not fuse into the operation before."""


def triple(values: int | Triple) -> tuple[int, ...]:
    """A setting for each of the three axes; torch stores one that is the same on all axes as one number."""
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * 3 if len(values) == 1 else values


def arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """All arguments of a node: torch.export leaves out the last ones where they are the defaults, which are given here."""
    return [*node.args, *defaults[len(node.args) :]]
