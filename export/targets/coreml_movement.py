"""Writes operators that move elements as operations of ML Programs: slices, joins, permutations, paddings, repetitions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.targets.coreml_values import (
    array,
    beyond,
    cast,
    choose,
    constant,
    expanded,
    kind,
    kind_of_type,
    number,
    promoted,
    reshaped,
    through_integers,
)

aten = torch.ops.aten
Function = Callable[..., Any]


def reshape(x: Any, *_: Any, after: Sequence[int]) -> Any:
    return mb.reshape(x=x, shape=list(after)) if after else reshaped(x, after)


def cat(values: Sequence[Any], dim: int = 0) -> Any:
    return mb.concat(values=promoted(*values), axis=dim)


def stack(values: Sequence[Any], dim: int = 0) -> Any:
    return mb.stack(values=promoted(*values), axis=dim)


def slice_tensor(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    first, last, _ = slice(start, end).indices(x.shape[dim])
    if last <= first:
        raise beyond("a value without elements")
    begins, ends, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    begins[dim], ends[dim], steps[dim] = first, last, step
    return mb.slice_by_index(x=x, begin=begins, end=ends, stride=steps)


def select(x: Any, dim: int, index: int, *, after: Sequence[int]) -> Any:
    return reshape(slice_tensor(x, dim, index % x.shape[dim], index % x.shape[dim] + 1), after=after)


def permute(x: Any, dims: Sequence[int]) -> Any:
    return mb.transpose(x=x, perm=list(dims)) if x.rank else x


def transpose(x: Any, first: int, second: int) -> Any:
    return permute(x, swapped_axes(x.rank, first, second))


def parts(x: Any, sizes: Sequence[int], dim: int) -> list[Any]:
    """Cut an axis into parts of these sizes."""
    found, first = [], 0
    for size in sizes:
        found.append(slice_tensor(x, dim, first, first + size))
        first += size
    return found


def split(x: Any, size: int, dim: int = 0) -> list[Any]:
    whole = x.shape[dim]
    return parts(x, [min(size, whole - first) for first in range(0, whole, size)], dim)


def split_with_sizes(x: Any, sizes: Sequence[int], dim: int = 0) -> list[Any]:
    return parts(x, sizes, dim)


def chunk(x: Any, chunks: int, dim: int = 0) -> list[Any]:
    return split(x, -(-x.shape[dim] // chunks), dim)


def unbind(x: Any, dim: int = 0) -> list[Any]:
    shape = [size for axis, size in enumerate(x.shape) if axis != dim % x.rank]
    return [reshaped(part, shape) for part in split(x, 1, dim)]


def flip(x: Any, dims: Sequence[int]) -> Any:
    return mb.reverse(x=x, axes=[dim % x.rank for dim in dims])


def roll(x: Any, shifts: Any, dims: Any = ()) -> Any:
    given = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if not axes:
        return reshaped(roll(reshaped(x, [int(np.prod(x.shape))]), given[0], 0), x.shape)
    for shift, axis in zip(given, axes, strict=True):
        if by := shift % x.shape[axis]:
            cut = x.shape[axis] - by
            x = cat([slice_tensor(x, axis, cut), slice_tensor(x, axis, 0, cut)], axis)
    return x


def repeat(x: Any, repeats: Sequence[int]) -> Any:
    shape = (*[1] * (len(repeats) - x.rank), *x.shape)
    return through_integers(lambda value: mb.tile(x=reshaped(value, shape), reps=list(repeats)), x)


def expand(x: Any, *_: Any, after: Sequence[int], **__: Any) -> Any:
    return expanded(x, after)


def pad(x: Any, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Pad the last axes by two amounts for each, the last axis first, in any of PyTorch's modes."""
    if mode == "constant":
        return constant_pad(x, amounts, value or 0.0)
    for i in range(0, len(amounts), 2):
        before, after, axis = amounts[i], amounts[i + 1], x.rank - 1 - i // 2
        if before or after:
            x = _padded(x, axis, before, after, mode)
    return x


def _padded(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    """Pad one axis by elements of its own; a negative amount cuts. Core ML has no circular padding."""
    size = x.shape[axis]
    places = torch.arange(-before, size + after)
    if mode == "circular" or min(before, after) < 0:
        taken = {"circular": places % size, "reflect": (size - 1 - (places.abs() - (size - 1)).abs()).abs(), "replicate": places.clamp(0, size - 1)}
        return through_integers(lambda value: mb.gather(x=value, indices=array(taken[mode]), axis=axis), x)
    amounts = [0] * (2 * x.rank)
    amounts[2 * axis : 2 * axis + 2] = before, after
    return mb.pad(x=x, pad=amounts, mode=mode)


def constant_pad(x: Any, amounts: Sequence[int], value: float = 0.0) -> Any:
    """Pad with a constant; negative amounts cut. Core ML pads floating-point values only, so others are joined with constants."""
    pairs = [(0, 0)] * (x.rank - len(amounts) // 2) + [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:
            x = slice_tensor(x, axis, max(0, -before), x.shape[axis] - max(0, -after))
    positive = [(max(0, before), max(0, after)) for before, after in pairs]
    if kind(x) == "fp32":
        if len(amounts) == 2 * x.rank and not any(map(any, positive)):
            return x
        kept = positive[x.rank - len(amounts) // 2 :]
        return mb.pad(x=x, pad=[amount for pair in kept for amount in pair], mode="constant", constant_val=number(value))
    for axis, pair in enumerate(positive):
        sides = [_filled([amount if d == axis else size for d, size in enumerate(x.shape)], value, kind(x)) if amount else None for amount in pair]
        x = cat([part for part in (sides[0], x, sides[1]) if part is not None], axis)
    return x


def _filled(shape: Sequence[int], value: float, name: str) -> Any:
    return constant(torch.full(tuple(shape), {"fp32": float, "int32": int, "bool": bool}[name](value)))


def reflection_pad(x: Any, amounts: Sequence[int]) -> Any:
    return pad(x, amounts, "reflect")


def replication_pad(x: Any, amounts: Sequence[int]) -> Any:
    return pad(x, amounts, "replicate")


def filled(*_: Any, result: torch.dtype, after: Sequence[int], value: float = 0.0, **__: Any) -> Any:
    return _filled(after, value, kind_of_type(result))


def full_like(_: Any, value: float, *, result: torch.dtype, after: Sequence[int], **__: Any) -> Any:
    return filled(result=result, after=after, value=value)


def full(_: Sequence[int], value: float, *, result: torch.dtype, after: Sequence[int], **__: Any) -> Any:
    return filled(result=result, after=after, value=value)


def new_full(_: Any, __: Sequence[int], value: float, *, result: torch.dtype, after: Sequence[int], **___: Any) -> Any:
    return filled(result=result, after=after, value=value)


def ones(*_: Any, result: torch.dtype, after: Sequence[int], **__: Any) -> Any:
    return filled(result=result, after=after, value=1.0)


def triangle(x: Any, diagonal: int, lower: bool) -> Any:
    ones_of = torch.ones(x.shape[-2:], dtype=torch.bool)
    kept = constant(ones_of.tril(diagonal) if lower else ones_of.triu(diagonal))
    return choose(kept, x, _filled((), 0, kind(x)), x.shape)


def copy(x: Any, source: Any, *_: Any, after: Sequence[int]) -> Any:
    return expanded(cast(source, kind(x)), after)


def pixel_shuffle(x: Any, factor: int, *, after: Sequence[int]) -> Any:
    """Write a pixel shuffle; for a rank other than 4 the leading axes are joined."""
    images = reshaped(x, (-1, *x.shape[-3:])) if x.rank != 4 else x
    return reshaped(mb.pixel_shuffle(x=images, upscale_factor=factor), after)


def pixel_unshuffle(x: Any, factor: int, *, after: Sequence[int]) -> Any:
    """Write a pixel unshuffle as a reshape and a transposition of rank 6 at most, which iOS 15 has too."""
    lead = int(np.prod(x.shape[:-2]))
    height, width = x.shape[-2] // factor, x.shape[-1] // factor
    split_up = mb.reshape(x=x, shape=[lead, height, factor, width * factor])
    rows = mb.reshape(x=mb.transpose(x=split_up, perm=[0, 2, 1, 3]), shape=[lead * factor, height, width, factor])
    return mb.reshape(x=mb.transpose(x=rows, perm=[0, 3, 1, 2]), shape=list(after))


def channel_shuffle(x: Any, groups: int) -> Any:
    batch, channels, *rest = x.shape
    apart = mb.reshape(x=x, shape=[batch, groups, channels // groups, int(np.prod(rest))])
    return mb.reshape(x=mb.transpose(x=apart, perm=[0, 2, 1, 3]), shape=list(x.shape))


def unfold(x: Any, dim: int, size: int, step: int) -> Any:
    """Write all windows along an axis, as a new last axis."""
    windows = mb.sliding_windows(x=x, axis=dim % x.rank, size=size, stride=step)
    axis = dim % x.rank + 1
    return permute(windows, [*(d for d in range(x.rank + 1) if d != axis), axis])


def replaced(x: Any, source: Any, dim: int, first: int, last: int, step: int) -> Any:
    """Write a value in which elements of an axis, from `first` to before `last`, are replaced by those of another."""
    source = cast(source, kind(x))
    if step == 1:
        found = [slice_tensor(x, dim, 0, first)] if first else []
        return cat([*found, source, *([slice_tensor(x, dim, last)] if last < x.shape[dim] else [])], dim)
    order, places = list(range(x.shape[dim])), list(range(first, last, step))
    for i, place in enumerate(places):
        order[place] = x.shape[dim] + i
    return through_integers(lambda value: mb.gather(x=value, indices=np.array(order, np.int32), axis=dim), cat([x, source], dim))


def slice_scatter(x: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    first, last, _ = slice(start, end).indices(x.shape[dim])
    return replaced(x, source, dim % x.rank, first, last, step)


def select_scatter(x: Any, source: Any, dim: int, index: int) -> Any:
    shape = [1 if axis == dim % x.rank else size for axis, size in enumerate(x.shape)]
    place = index % x.shape[dim]
    return replaced(x, reshaped(source, shape), dim % x.rank, place, place + 1, 1)


def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1, *, after: Sequence[int]) -> Any:
    """Write a diagonal: the two axes joined at the end, and every element of it gathered."""
    first, second = dim1 % x.rank, dim2 % x.rank
    rows, columns = x.shape[first], x.shape[second]
    others = [axis for axis in range(x.rank) if axis not in (first, second)]
    joined = reshaped(permute(x, [*others, first, second]), [*(x.shape[axis] for axis in others), rows * columns])
    places = torch.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    found = through_integers(lambda value: mb.gather(x=value, indices=array(places), axis=len(others)), joined)
    return reshaped(found, after)


OPERATORS: dict[Any, Function] = {
    aten.cat.default: cat,
    aten.channel_shuffle.default: channel_shuffle,
    aten.chunk.default: chunk,
    aten.constant_pad_nd.default: constant_pad,
    aten.copy.default: copy,
    aten.diagonal.default: diagonal,
    aten.expand.default: expand,
    aten.expand_as.default: expand,
    aten.flip.default: flip,
    aten.full.default: full,
    aten.full_like.default: full_like,
    aten.new_full.default: new_full,
    aten.new_ones.default: ones,
    aten.new_zeros.default: filled,
    aten.ones_like.default: ones,
    aten.pad.default: pad,
    aten.permute.default: permute,
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.reflection_pad1d.default: reflection_pad,
    aten.reflection_pad2d.default: reflection_pad,
    aten.repeat.default: repeat,
    aten.replication_pad1d.default: replication_pad,
    aten.replication_pad2d.default: replication_pad,
    aten.roll.default: roll,
    aten.select.int: select,
    aten.select_scatter.default: select_scatter,
    aten.slice.Tensor: slice_tensor,
    aten.slice_scatter.default: slice_scatter,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split_with_sizes,
    aten.stack.default: stack,
    aten.t.default: lambda x: permute(x, [1, 0]) if x.rank == 2 else x,
    aten.transpose.int: transpose,
    aten.tril.default: lambda x, diagonal=0: triangle(x, diagonal, True),
    aten.triu.default: lambda x, diagonal=0: triangle(x, diagonal, False),
    aten.unbind.int: unbind,
    aten.unfold.default: unfold,
    aten.zeros_like.default: filled,
}
