"""Writes operators that take and put elements by indices as operations of ML Programs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.targets.coreml_movement import permute, slice_tensor
from clipstep.export.targets.coreml_values import cast, choose, constant, expanded, kind, promoted, reshaped, shape_of, through_integers
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Function = Callable[..., Any]


def places(indices: Any, size: int) -> Any:
    """Return indices as int32 without negative ones, which iOS 17 does not take; constants as a constant."""
    if kind(indices) == "bool":
        raise Unsupported("indices that are booleans")
    if indices.val is not None:
        return constant(torch.from_numpy(np.asarray(indices.val) % size))
    given = cast(indices, "int32")
    shape = shape_of(given)
    return choose(mb.less(x=given, y=np.int32(0)), mb.add(x=given, y=np.int32(size)), given, shape)


def index_select(x: Any, dim: int, index: Any) -> Any:
    wanted = reshaped(index, [1]) if not shape_of(index) else index
    return through_integers(lambda value: mb.gather(x=value, indices=places(wanted, x.shape[dim]), axis=dim), x)


def gather(x: Any, dim: int, index: Any, **_: Any) -> Any:
    dim %= x.rank
    for axis, size in enumerate(shape_of(index)):
        if axis != dim and size != x.shape[axis]:
            x = slice_tensor(x, axis, 0, size)
    return through_integers(lambda value: mb.gather_along_axis(x=value, indices=places(index, x.shape[dim]), axis=dim), x)


def embedding(weight: Any, indices: Any, *_: Any, **__: Any) -> Any:
    return mb.gather(x=weight, indices=places(indices, weight.shape[0]), axis=0)


def _indexed(x: Any, indices: Sequence[Any]) -> tuple[list[int], Any]:
    """Return the axes that are indexed and the indices of each element, in a last axis of their own."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    given = [places(indices[axis], x.shape[axis]) for axis in axes]
    shape = np.broadcast_shapes(*(shape_of(index) for index in given)) or (1,)
    return axes, mb.stack(values=[expanded(index, shape) for index in given], axis=len(shape))


def index_tensor(x: Any, indices: Sequence[Any], *, after: Sequence[int]) -> Any:
    """Write an index by tensors. The indexed axes come first in Core ML; PyTorch puts them at the first of them if they are neighbours."""
    axes, wanted = _indexed(x, indices)
    if len(axes) == 1:
        index = places(indices[axes[0]], x.shape[axes[0]])
        return reshaped(through_integers(lambda value: mb.gather(x=value, indices=index, axis=axes[0]), x), after)
    rest = [axis for axis in range(x.rank) if axis not in axes]
    found = through_integers(lambda value: mb.gather_nd(x=permute(value, [*axes, *rest]), indices=wanted), x)
    if axes == list(range(axes[0], axes[-1] + 1)) and axes[0]:
        count = wanted.rank - 1
        order = list(range(found.rank))
        found = permute(found, [*order[count : count + axes[0]], *order[:count], *order[count + axes[0] :]])
    return reshaped(found, after)


def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """Write a value of which indexed elements are replaced, or added to."""
    axes, wanted = _indexed(x, indices)
    rest = [axis for axis in range(x.rank) if axis not in axes]
    if axes != list(range(len(axes))) and axes != list(range(axes[0], axes[-1] + 1)):
        raise Unsupported("an assignment to axes that are not neighbours")
    order = [*axes, *rest]
    data = permute(x, order)
    count, before = wanted.rank - 1, axes[0]
    shape = [*shape_of(wanted)[:-1], *data.shape[len(axes) :]]
    as_given = [*shape[count : count + before], *shape[:count], *shape[count + before :]]
    updates = permute(expanded(values, as_given), [*range(before, before + count), *range(before), *range(before + count, len(shape))])
    data, updates = promoted(data, cast(updates, kind(x)))
    mode = "add" if accumulate else "update"
    put = through_integers_of_two(lambda one, two: mb.scatter_nd(data=one, indices=wanted, updates=two, mode=mode), data, updates)
    return permute(put, [order.index(axis) for axis in range(x.rank)])


def through_integers_of_two(function: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    return cast(function(cast(x, "int32"), cast(y, "int32")), "bool") if kind(x) == "bool" else function(x, y)


def scatter(x: Any, dim: int, index: Any, source: Any, *, mode: str = "update") -> Any:
    """Write a scatter along an axis; the other axes of the indices must have the size of the value's."""
    dim %= x.rank
    shape = shape_of(index)
    if any(size != x.shape[axis] for axis, size in enumerate(shape) if axis != dim):
        raise Unsupported("indices that are smaller than the value along other axes")
    if not shape_of(source):
        updates = expanded(cast(source, kind(x)) if not isinstance(source, int | float) else constant(torch.tensor(source)), shape)
    else:
        updates = source
        for axis, size in enumerate(shape):
            updates = updates if updates.shape[axis] == size else slice_tensor(updates, axis, 0, size)
    where = places(index, x.shape[dim])
    return through_integers_of_two(
        lambda one, two: mb.scatter_along_axis(data=one, indices=where, updates=two, axis=dim, mode=mode), x, cast(updates, kind(x))
    )


def scatter_reduce(x: Any, dim: int, index: Any, source: Any, *, reduce: str) -> Any:
    if reduce not in ("add", "multiply"):
        raise Unsupported("a `reduce` other than `add` and `multiply`")
    return scatter(x, dim, index, source, mode={"add": "add", "multiply": "mul"}[reduce])


OPERATORS: dict[Any, Function] = {
    aten.embedding.default: embedding,
    aten.gather.default: gather,
    aten.index.Tensor: index_tensor,
    aten._unsafe_index.Tensor: index_tensor,
    aten.index_put.default: index_put,
    aten._unsafe_index_put.default: index_put,
    aten.index_select.default: index_select,
    aten.scatter.reduce: scatter_reduce,
    aten.scatter.src: lambda x, dim, index, source: scatter(x, dim, index, source),
    aten.scatter.value: lambda x, dim, index, value: scatter(x, dim, index, value),
    aten.scatter.value_reduce: scatter_reduce,
    aten.scatter_add.default: lambda x, dim, index, source: scatter(x, dim, index, source, mode="add"),
}
