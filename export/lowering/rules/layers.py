"""Rules for linear layers, matrix products and layer norms."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import Value, expand, to_lazy, unwrap_low_rank

aten = torch.ops.aten


def linear(profile: EngineProfile, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value | Tensor:
    """Compute a linear layer, with all axes but the last joined into the rows of a matrix."""
    lazy = to_lazy(x)
    rows = lazy.tensor((math.prod(lazy.shape[:-1]), lazy.shape[-1]))
    return unwrap_low_rank(LazyPermutation.of(F.linear(rows, weight, bias), (*lazy.shape[:-1], len(weight))))


def matmul(profile: EngineProfile, x: Value | Tensor, y: Value | Tensor) -> Value | Tensor:
    """A batched matrix product; the leading axes are broadcast and joined."""
    a, b = to_lazy(x), to_lazy(y)
    vectors = len(a.shape) == 1, len(b.shape) == 1
    a = a.reshape((1, *a.shape)) if vectors[0] else a
    b = b.reshape((*b.shape, 1)) if vectors[1] else b
    leading = tuple(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    if math.prod(b.shape[:-2]) == 1:
        data = a.tensor((math.prod(a.shape[:-1]), inner)) @ b.tensor((inner, columns))
    else:
        whole = [to_lazy(expand(value, (*leading, *value.shape[-2:]))) for value in (a, b)]
        data = torch.bmm(*(value.tensor((math.prod(leading), *value.shape[-2:])) for value in whole))
    shape = (*leading, *(() if vectors[0] else (rows,)), *(() if vectors[1] else (columns,)))
    return unwrap_low_rank(LazyPermutation.of(data, shape))


def layer_norm(
    profile: EngineProfile,
    x: Value,
    normalised: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-5,
    *_: Any,
) -> Any:
    """Compute a layer norm, with all axes but the normalised ones joined into the rows of a matrix."""
    lazy, size = to_lazy(x), math.prod(normalised)
    rows = lazy.tensor((math.prod(lazy.shape) // size, size))
    scale, shift = (None if value is None else value.flatten() for value in (weight, bias))
    return unwrap_low_rank(LazyPermutation.of(F.layer_norm(rows, (size,), scale, shift, epsilon), lazy.shape))


RULES: dict[Any, Callable[..., Any]] = {
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.layer_norm.default: layer_norm,
}
