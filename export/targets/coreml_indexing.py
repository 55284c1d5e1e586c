"""Writes operators that take and put elements by indices as operations of ML Programs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.targets.coreml_movement import slice_tensor
from clipstep.export.targets.coreml_values import cast, choose, constant, expanded, kind, reshaped, shape_of, through_integers
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
    aten.gather.default: gather,
    aten.index_select.default: index_select,
    aten.scatter.reduce: scatter_reduce,
    aten.scatter.src: lambda x, dim, index, source: scatter(x, dim, index, source),
    aten.scatter.value: lambda x, dim, index, value: scatter(x, dim, index, value),
    aten.scatter.value_reduce: scatter_reduce,
    aten.scatter_add.default: lambda x, dim, index, source: scatter(x, dim, index, source, mode="add"),
}
