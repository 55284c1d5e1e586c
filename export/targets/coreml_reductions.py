"""Writes reductions, running sums and sorting as operations of ML Programs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.targets.coreml_values import arithmetic, cast, kind, kind_of_type, reshaped

aten = torch.ops.aten
Function = Callable[..., Any]
Dims = int | Sequence[int] | None


def axes_of(x: Any, dims: Dims) -> list[int]:
    return [dims] if isinstance(dims, int) else list(dims or range(x.rank))


def reduction(operation: Function) -> Function:
    """Return a function that writes a reduction along `dims`, all axes if there are none, of a value converted to the result's type."""

    def write(x: Any, dims: Dims = None, keep: bool = False, dtype: torch.dtype | None = None, *, result: torch.dtype) -> Any:
        x = cast(x, kind_of_type(result))
        return operation(x=x, axes=axes_of(x, dims), keep_dims=keep) if x.rank else x

    return write


def position(operation: Function) -> Function:
    def write(x: Any, dim: int | None = None, keep: bool = False, *, after: Sequence[int]) -> Any:
        values = cast(x, "int32") if kind(x) == "bool" else x
        if dim is None:
            return reshaped(operation(x=reshaped(values, [math.prod(x.shape)]), axis=0, keep_dims=True), after)
        return operation(x=values, axis=dim, keep_dims=keep)

    return write


def softmax(x: Any, dim: int, *_: Any) -> Any:
    return mb.softmax(x=cast(x, "fp32"), axis=dim)


def cumsum(x: Any, dim: int, *, result: torch.dtype, **_: Any) -> Any:
    value = cast(x, kind_of_type(result))
    return mb.cumsum(x=value, axis=dim % x.rank) if x.rank else value


def topk(x: Any, k: int, dim: int = -1, largest: bool = True, ordered: bool = True) -> list[Any]:
    values, places = mb.topk(x=arithmetic(x, x)[0], k=k, axis=dim % x.rank, ascending=not largest)
    return [values, places]


OPERATORS: dict[Any, Function] = {
    aten.amax.default: reduction(mb.reduce_max),
    aten.amin.default: reduction(mb.reduce_min),
    aten.argmax.default: position(mb.reduce_argmax),
    aten.argmin.default: position(mb.reduce_argmin),
    aten.cumsum.default: cumsum,
    aten.mean.dim: reduction(mb.reduce_mean),
    aten.prod.dim_int: reduction(mb.reduce_prod),
    aten.softmax.int: softmax,
    aten.sum.dim_IntList: reduction(mb.reduce_sum),
    aten.topk.default: topk,
}
