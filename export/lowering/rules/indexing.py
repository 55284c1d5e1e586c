"""Rules for indices, and for assignments to the entries that an index or a slice selects."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipstep.export.compat.torch_internals import is_traced
from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.elementwise import pointwise
from clipstep.export.lowering.rules.movement import Operand, along_axis, cat, rearranged, slice_tensor, unsqueeze
from clipstep.export.lowering.values import Value, expand, rowwise, to_lazy, unwrap_low_rank
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def slice_scatter(
    profile: EngineProfile, x: Operand, source: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value | Tensor:
    """An assignment to a slice: the concatenation of the entries before it, `source`, and the entries after it."""
    dim %= len(x.shape)
    kept = range(x.shape[dim])[start:end:step]
    if step != 1:
        replaced = {index: x.shape[dim] + position for position, index in enumerate(kept)}
        return rearranged(profile, cat(profile, [x, source], dim), dim, [replaced.get(index, index) for index in range(x.shape[dim])])
    parts = [slice_tensor(profile, x, dim, 0, kept.start)] if kept.start else []
    parts.append(source)
    if kept.stop < x.shape[dim]:
        parts.append(slice_tensor(profile, x, dim, kept.stop))
    return parts[0] if len(parts) == 1 else cat(profile, parts, dim)


def select_scatter(profile: EngineProfile, x: Operand, source: Operand, dim: int, index: int) -> Value | Tensor:
    index %= x.shape[dim]
    return slice_scatter(profile, x, unsqueeze(profile, source, dim), dim, index, index + 1)


def index_select(profile: EngineProfile, x: Operand, dim: int, index: Tensor) -> Value | Tensor:
    return along_axis(lambda tensor, axis: tensor.index_select(axis, index), x, dim % len(x.shape))


def index(profile: EngineProfile, x: Operand, indices: Sequence[Tensor | None]) -> Value | Tensor:
    """Advanced indexing: the indexed axes are joined into one, of which the entries at the joined indices are selected."""
    moved, dim, places, shape, _ = _joined_index(x, indices)
    before, after = moved.shape[:dim], moved.shape[dim + 1 :]
    rows = moved.tensor((math.prod(before), moved.shape[dim], math.prod(after))).index_select(
        1, places if isinstance(places, Tensor) else torch.from_numpy(places)
    )
    return unwrap_low_rank(LazyPermutation.of(rows, (*before, *shape, *after)))


def _joined_index(
    x: Operand, indices: Sequence[Tensor | None]
) -> tuple[LazyPermutation, int, Tensor | np.ndarray[Any, Any], tuple[int, ...], Callable[[Operand], LazyPermutation | Tensor]]:
    """Join the axes of a value that an index has tensors for into one axis.

    Returns:
        The value with these axes joined; the joined axis; the places on it that are selected, an array if they are known at export and a tensor
        if the step computes them; the shape of the index; and a function that turns a value of the first one's shape back to the axes of `x`.

    Raises:
        Unsupported: the index is a mask.
    """
    axes = [d for d, given in enumerate(indices) if given is not None]
    given = [value if isinstance(value, Tensor) else to_lazy(value).tensor(value.shape) for value in indices if value is not None]
    if any(value.dtype == torch.bool for value in given):
        raise Unsupported("an index by a mask, whose number of entries depends on the data")
    shape, lazy = np.broadcast_shapes(*(tuple(value.shape) for value in given)), to_lazy(x)
    first = axes[0]
    order = list(range(len(lazy.shape)))
    if axes != list(range(first, first + len(axes))):  # As in NumPy, the result's indexed axes are the first ones then.
        first = 0
        order = [*axes, *(d for d in order if d not in axes)]
    permuted = lazy.permute(order)
    sizes = permuted.shape[first : first + len(axes)]
    joined: Any = 0
    numbers: list[Any] = [*given] if any(map(is_traced, given)) else [value.numpy() for value in given]
    for value, size in zip(numbers, sizes, strict=True):
        joined = joined * size + value % size  # Negative indices count from the end.
    moved = permuted.reshape((*permuted.shape[:first], math.prod(sizes), *permuted.shape[first + len(axes) :]))

    def back(value: Operand) -> LazyPermutation | Tensor:
        return unwrap_low_rank(to_lazy(value).reshape(permuted.shape).permute([order.index(d) for d in range(len(order))]))

    return moved, first, joined.flatten(), shape, back


def index_put(profile: EngineProfile, x: Operand, indices: Sequence[Tensor | None], values: Operand, accumulate: bool = False) -> Value | Tensor:
    """Assign to the entries that an index selects, or add to them: by a mask of the whole value, or at places that are known at export."""
    (first, *_) = given = [value for value in indices if value is not None]
    if to_lazy(first).data.dtype == torch.bool:
        if len(given) > 1 or tuple(first.shape) != tuple(x.shape) or math.prod(values.shape) != 1 or accumulate:
            raise Unsupported("an assignment by a mask to other than all axes, or of several numbers")
        return pointwise(torch.where)(profile, first, to_lazy(values).tensor(()), x)
    moved, dim, places, shape, back = _joined_index(x, indices)
    length, count = moved.shape[dim], math.prod(shape)
    sizes = (*moved.shape[:dim], *shape, *moved.shape[dim + 1 :])
    source = to_lazy(expand(values, sizes)).reshape((*moved.shape[:dim], count, *moved.shape[dim + 1 :]))
    if isinstance(places, Tensor):
        outer, inner = math.prod(moved.shape[:dim]), math.prod(moved.shape[dim + 1 :])
        rows, given_rows = moved.tensor((outer, length, inner)), source.tensor((outer, count, inner))
        return back(LazyPermutation.of(_written(rows, given_rows, places, accumulate=accumulate), moved.shape))
    numbers = places.tolist()
    if accumulate:
        added = torch.zeros(length, count).index_put((torch.tensor(numbers), torch.arange(count)), torch.ones(count))
        result = pointwise(torch.add)(profile, moved, rowwise(lambda rows: added @ rows[0], [source], dim))
    else:
        replaced = {place: length + position for position, place in enumerate(numbers)}
        result = rearranged(profile, cat(profile, [moved, source], dim), dim, [replaced.get(place, place) for place in range(length)])
    return back(result)


def _written(x: Tensor, values: Tensor, places: Tensor, *, accumulate: bool) -> Tensor:
    """Write `values` `(A, n, B)` to the rows of `x` `(A, m, B)` at computed places `(n,)`, each of which is compared with each row.

    Of several values for one row the last one is written; or they are added up.
    """
    length, count = x.shape[1], values.shape[1]
    if length * count > MOST_COMPARISONS:
        raise Unsupported(f"an assignment to {count} computed places among {length}, which takes too many comparisons")
    hits = places == torch.arange(length).unsqueeze(-1)
    if accumulate:
        if not x.is_floating_point():
            raise Unsupported("a sum of whole numbers at computed places")
        return x + hits.to(x.dtype) @ values
    newest = (hits.to(torch.int32) * torch.arange(1, count + 1, dtype=torch.int32)).amax(1)
    is_written = newest > 0
    chosen = values.index_select(1, ((newest - 1) * is_written.to(torch.int32)).to(torch.int64))
    return torch.where(is_written.unsqueeze(-1), chosen, x)


MOST_COMPARISONS = 1 << 24
RULES: dict[Any, Callable[..., Any]] = {
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: select_scatter,
    aten.index_select.default: index_select,
    aten.index.Tensor: index,
    aten._unsafe_index.Tensor: index,
    aten.index_put.default: index_put,
    aten._unsafe_index_put.default: index_put,
}
