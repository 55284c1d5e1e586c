"""The rule for max pools that also return where each maximum was, as `max_unpool` needs it."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import Value, to_lazy, unwrap_low_rank
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
LOWEST = -3e38
MOST_TAPS = 64
"""The most entries under a kernel: each is a slice of the input."""


def max_pool_with_places(axes: int) -> Callable[..., Any]:
    """Return the rule of the max pool along the last `axes` axes that also gives each maximum's place among the entries of its image or volume."""

    def rule(profile: EngineProfile, x: Value | Tensor, kernel: Sequence[int], *settings: Any) -> tuple[Any, Any]:
        leading, sizes = x.shape[:-axes], x.shape[-axes:]
        found = pooled(to_lazy(x).tensor((math.prod(leading), *sizes)), kernel, *settings)
        values, places = (unwrap_low_rank(LazyPermutation.of(value, (*leading, *value.shape[1:]))) for value in found)
        return values, places

    return rule


def pooled(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,), dilation: Sequence[int] = (1,), ceil: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the largest entry under each kernel of `x` `(n, *sizes)`, and its place."""
    sizes = x.shape[1:]
    kernel, padding, dilation = (_each(setting, len(sizes)) for setting in (kernel, padding, dilation))
    stride = _each(stride or kernel, len(sizes))
    if ceil or math.prod(kernel) > MOST_TAPS:
        raise Unsupported(f"a max pool with places and a kernel of more than {MOST_TAPS} entries, or with ceil_mode")
    counts = [(size + 2 * pad - d * (k - 1) - 1) // step + 1 for size, k, step, pad, d in zip(sizes, kernel, stride, padding, dilation, strict=True)]
    padded = F.pad(x, [pad for pad in reversed(padding) for _ in range(2)], value=LOWEST) if any(padding) else x
    taps = [[d * place for place, d in zip(tap, dilation, strict=True)] for tap in product(*(range(size) for size in kernel))]
    under = torch.cat([_strided(padded, tap, counts, stride).reshape(-1, 1, math.prod(counts)) for tap in taps], 1)
    table = torch.stack([_places(tap, counts, stride, padding, sizes) for tap in taps])
    chosen = table.unsqueeze(0).expand(under.shape).gather(1, under.argmax(1, keepdim=True))
    return under.amax(1).reshape(-1, *counts), chosen.reshape(-1, *counts)


def _each(setting: Sequence[int], axes: int) -> list[int]:
    return [*setting] * (axes if len(setting) == 1 else 1)


def _strided(x: Tensor, starts: Sequence[int], counts: Sequence[int], strides: Sequence[int]) -> Tensor:
    for axis, (start, count, stride) in enumerate(zip(starts, counts, strides, strict=True), x.ndim - len(counts)):
        x = aten.slice.Tensor(x, axis, start, start + (count - 1) * stride + 1, stride)
    return x


def _places(tap: Sequence[int], counts: Sequence[int], strides: Sequence[int], padding: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Return for each output the place of one of the kernel's entries, counted through the axes; one in the padding has any place."""
    along = [torch.arange(count) * stride + start - pad for start, count, stride, pad in zip(tap, counts, strides, padding, strict=True)]
    place = torch.zeros(counts, dtype=torch.int64)
    for axis, (indices, size) in enumerate(zip(along, sizes, strict=True)):
        place = place * size + indices.clamp(0, size - 1).reshape([-1 if axis == other else 1 for other in range(len(sizes))])
    return place.flatten()


RULES: dict[Any, Callable[..., Any]] = {
    aten.max_pool2d_with_indices.default: max_pool_with_places(2),
    aten.max_pool3d_with_indices.default: max_pool_with_places(3),
}
