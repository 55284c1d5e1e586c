"""Writes reductions, running sums and sorting as operations of ML Programs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.targets.coreml_elementwise import log1p, of
from clipstep.export.targets.coreml_movement import cat, slice_tensor
from clipstep.export.targets.coreml_values import arithmetic, cast, choose, constant, kind, kind_of_type, reshaped

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


mean, total = reduction(mb.reduce_mean), reduction(mb.reduce_sum)


def of_all(operation: Function) -> Function:
    def write(x: Any, dtype: torch.dtype | None = None, *, result: torch.dtype) -> Any:
        return reduction(operation)(x, None, False, result=result)

    return write


def truth(operation: Function) -> Function:
    """Return a function that writes `any` (by the maximum) or `all` (by the minimum) of truth values as 0 and 1."""

    def write(x: Any, dims: Dims = None, keep: bool = False) -> Any:
        numbers = cast(cast(x, "bool"), "int32")
        return cast(operation(x=numbers, axes=axes_of(numbers, dims), keep_dims=keep), "bool")

    return write


def position(operation: Function) -> Function:
    def write(x: Any, dim: int | None = None, keep: bool = False, *, after: Sequence[int]) -> Any:
        values = cast(x, "int32") if kind(x) == "bool" else x
        if dim is None:
            return reshaped(operation(x=reshaped(values, [math.prod(x.shape)]), axis=0, keep_dims=True), after)
        return operation(x=values, axis=dim, keep_dims=keep)

    return write


def with_position(operation: Function, found: Function) -> Function:
    """Return a function that writes a maximum or minimum along an axis and its position."""

    def write(x: Any, dim: int, keep: bool = False) -> list[Any]:
        return [operation(x=x, axes=[dim], keep_dims=keep), found(x=x, axis=dim, keep_dims=keep)]

    return write


def variance(x: Any, dims: Dims = None, *, correction: float | None = 1, keepdim: bool = False) -> Any:
    """Write a variance: the mean square of the differences from the mean."""
    axes = axes_of(x, dims)
    count = math.prod(x.shape[axis] for axis in axes)
    less = 1 if correction is None else correction
    centred = mb.sub(x=x, y=mb.reduce_mean(x=x, axes=axes, keep_dims=True))
    squares = mb.reduce_mean(x=mb.mul(x=centred, y=centred), axes=axes, keep_dims=keepdim)
    return of(mb.mul, squares, count / (count - less)) if less else squares


def deviation(x: Any, dims: Dims = None, *, correction: float | None = 1, keepdim: bool = False) -> Any:
    return mb.sqrt(x=variance(x, dims, correction=correction, keepdim=keepdim))


def and_mean(function: Function) -> Function:
    def write(x: Any, dims: Dims = None, *, correction: float | None = 1, keepdim: bool = False) -> list[Any]:
        return [function(x, dims, correction=correction, keepdim=keepdim), mb.reduce_mean(x=x, axes=axes_of(x, dims), keep_dims=keepdim)]

    return write


def norm(x: Any, order: float | None = 2, dims: Dims = None, keep: bool = False, **_: Any) -> Any:
    """Write a vector norm. For large orders, and for float16, the values are divided by the largest before they are raised."""
    axes = axes_of(x, dims)
    order = 2 if order is None else order
    size = mb.abs(x=x)
    if order == 1:
        return mb.reduce_sum(x=size, axes=axes, keep_dims=keep)
    if math.isinf(order):
        return (mb.reduce_max if order > 0 else mb.reduce_min)(x=size, axes=axes, keep_dims=keep)
    if order == 0:
        return mb.reduce_sum(x=cast(cast(x, "bool"), "fp32"), axes=axes, keep_dims=keep)
    if order == 2:
        return mb.reduce_l2_norm(x=x, axes=axes, keep_dims=keep)
    powers = mb.reduce_sum(x=of(mb.pow, size, order), axes=axes, keep_dims=keep)
    return of(mb.pow, powers, 1 / order)


def log_softmax(x: Any, dim: int, *_: Any) -> Any:
    largest = mb.reduce_max(x=x, axes=[dim], keep_dims=True)
    shifted = mb.sub(x=x, y=largest)
    return mb.sub(x=shifted, y=mb.log(x=mb.reduce_sum(x=mb.exp(x=shifted), axes=[dim], keep_dims=True)))


def softmax(x: Any, dim: int, *_: Any) -> Any:
    return mb.softmax(x=cast(x, "fp32"), axis=dim)


def logsumexp(x: Any, dims: Dims, keep: bool = False) -> Any:
    return mb.reduce_log_sum_exp(x=cast(x, "fp32"), axes=axes_of(x, dims), keep_dims=keep)


def cumsum(x: Any, dim: int, *, result: torch.dtype, **_: Any) -> Any:
    value = cast(x, kind_of_type(result))
    return mb.cumsum(x=value, axis=dim % x.rank) if x.rank else value


def scan(combine: Function, x: Any, dim: int) -> Any:
    """Write a running combination along an axis in log2(size) steps: each step combines every element with the one 1, 2, 4, ... before it."""
    size, shift = x.shape[dim], 1
    while shift < size:
        moved = combine(slice_tensor(x, dim, shift), slice_tensor(x, dim, 0, size - shift))
        x, shift = cat([slice_tensor(x, dim, 0, shift), moved], dim), 2 * shift
    return x


def cumprod(x: Any, dim: int, *, result: torch.dtype, **_: Any) -> Any:
    return scan(lambda a, b: mb.mul(x=a, y=b), cast(x, kind_of_type(result)), dim)


def running(operation: Function, at_least: Function) -> Function:
    """Return a function that writes a running maximum or minimum and its positions, which are of the last of equal values."""

    def write(x: Any, dim: int) -> list[Any]:
        values = scan(lambda a, b: operation(x=a, y=b), x, dim)
        shape = [size if axis == dim % x.rank else 1 for axis, size in enumerate(x.shape)]
        numbers = constant(torch.arange(x.shape[dim], dtype=torch.int32).reshape(shape).expand(tuple(x.shape)))
        reached = choose(at_least(x=x, y=values), numbers, np.int32(0), x.shape)
        return [values, scan(lambda a, b: mb.maximum(x=a, y=b), reached, dim)]

    return write


def log_add_exp(x: Any, y: Any) -> Any:
    return mb.add(x=mb.maximum(x=x, y=y), y=log1p(mb.exp(x=of(mb.mul, mb.abs(x=mb.sub(x=x, y=y)), -1.0))))


def sort(x: Any, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> list[Any]:
    return topk(x, x.shape[dim], dim, descending)


def topk(x: Any, k: int, dim: int = -1, largest: bool = True, ordered: bool = True) -> list[Any]:
    values, places = mb.topk(x=arithmetic(x, x)[0], k=k, axis=dim % x.rank, ascending=not largest)
    return [values, places]


def smallest(x: Any, k: int, dim: int = -1, keep: bool = False, *, after: Sequence[int] | None = None) -> list[Any]:
    """Write the k-th smallest value along an axis, and its position."""
    found = [slice_tensor(part, dim, k - 1, k) for part in topk(x, k, dim, largest=False)]
    shape = [size for axis, size in enumerate(found[0].shape) if axis != dim % x.rank]
    return found if keep else [reshaped(part, shape) for part in found]


def median(x: Any, dim: int, keep: bool = False) -> list[Any]:
    return smallest(x, (x.shape[dim] + 1) // 2, dim, keep)


def argsort(x: Any, dim: int = -1, descending: bool = False) -> Any:
    return mb.argsort(x=x, axis=dim, ascending=not descending)


def count_nonzero(x: Any, dims: Dims = None) -> Any:
    return mb.reduce_sum(x=cast(cast(x, "bool"), "int32"), axes=axes_of(x, dims), keep_dims=False)


OPERATORS: dict[Any, Function] = {
    aten._log_softmax.default: log_softmax,
    aten._softmax.default: softmax,
    aten.all.default: truth(mb.reduce_min),
    aten.all.dim: truth(mb.reduce_min),
    aten.all.dims: truth(mb.reduce_min),
    aten.amax.default: reduction(mb.reduce_max),
    aten.amin.default: reduction(mb.reduce_min),
    aten.any.default: truth(mb.reduce_max),
    aten.any.dim: truth(mb.reduce_max),
    aten.any.dims: truth(mb.reduce_max),
    aten.argmax.default: position(mb.reduce_argmax),
    aten.argmin.default: position(mb.reduce_argmin),
    aten.argsort.default: argsort,
    aten.count_nonzero.dim_IntList: count_nonzero,
    aten.cummax.default: running(mb.maximum, mb.greater_equal),
    aten.cummin.default: running(mb.minimum, mb.less_equal),
    aten.cumprod.default: cumprod,
    aten.cumsum.default: cumsum,
    aten.kthvalue.default: smallest,
    aten.linalg_vector_norm.default: norm,
    aten.log_softmax.int: log_softmax,
    aten.logcumsumexp.default: lambda x, dim: scan(log_add_exp, x, dim),
    aten.logsumexp.default: logsumexp,
    aten.max.default: of_all(mb.reduce_max),
    aten.max.dim: with_position(mb.reduce_max, mb.reduce_argmax),
    aten.mean.default: of_all(mb.reduce_mean),
    aten.mean.dim: mean,
    aten.median.dim: median,
    aten.min.default: of_all(mb.reduce_min),
    aten.min.dim: with_position(mb.reduce_min, mb.reduce_argmin),
    aten.norm.ScalarOpt_dim: norm,
    aten.prod.default: of_all(mb.reduce_prod),
    aten.prod.dim_int: reduction(mb.reduce_prod),
    aten.softmax.int: softmax,
    aten.sort.default: sort,
    aten.sort.stable: lambda x, *, stable=None, dim=-1, descending=False: sort(x, dim, descending),
    aten.std.correction: deviation,
    aten.std_mean.correction: and_mean(deviation),
    aten.sum.default: of_all(mb.reduce_sum),
    aten.sum.dim_IntList: total,
    aten.topk.default: topk,
    aten.var.correction: variance,
    aten.var.dim: lambda x, dims=None, unbiased=True, keep=False: variance(x, dims, correction=float(unbiased), keepdim=keep),
    aten.var_mean.correction: and_mean(variance),
}
