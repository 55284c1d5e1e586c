"""Groups of ATen operators, and their arguments, as passes, rules and writers need them."""

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
"""Operators that change the shape only; the new shape is in the metadata of their node."""
ELEMENTWISE = (aten.to.dtype, aten._to_copy.default, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
"""Elementwise operators on one value, alone or with constants, that engines do not fuse into the operation before."""


def triple(values: int | Triple) -> tuple[int, ...]:
    """Return a setting for each of the three axes; torch may store one number for all of them."""
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * 3 if len(values) == 1 else values


def arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """Return all arguments of a node, with `defaults` for the last ones, which torch.export may leave out."""
    return [*node.args, *defaults[len(node.args) :]]


def named_padding(name: str, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding "same" or "valid" of a convolution as the numbers before and after each axis; of an odd number, the larger half is after."""
    totals = [step * (size - 1) if name == "same" else 0 for size, step in zip(kernel, dilation, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]
