"""Rules for data movement: reshapes, permutations, slices, concatenations, paddings, shuffles.

On a value held as `Frames`, an operation along time rearranges the tuple of frames, and one along another axis works on each frame. All other
values are handled as lazy permutations.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import LazyPermutation, swapped_axes
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import (
    TIME,
    Frames,
    Value,
    concatenate,
    fits_one_batch,
    from_batch,
    from_channel_major,
    is_batched,
    keeps_channel_major,
    to_batch,
    to_channel_major,
    to_frames,
    to_lazy,
    unwrap_low_rank,
)
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
FRAME_AXIS = {1: 1, 3: 2, 4: 3}
"""The axis of a frame `(1, C, H, W)` for each axis of a value `(1, C, T, H, W)` except time."""
BATCH_AXIS = {**FRAME_AXIS, TIME: 0}
"""The axis of a batch `(T, C, H, W)` for each axis of a value."""
Operand = Value | Tensor


def reshape(profile: EngineProfile, x: Operand, shape: Sequence[int]) -> LazyPermutation | Tensor:
    return unwrap_low_rank(to_lazy(x).reshape(shape))


def permute(profile: EngineProfile, x: Operand, axes: Sequence[int]) -> LazyPermutation | Tensor:
    return unwrap_low_rank(to_lazy(x).permute(axes))


def transpose(profile: EngineProfile, x: Operand, first: int, second: int) -> LazyPermutation | Tensor:
    return permute(profile, x, swapped_axes(len(x.shape), first, second))


def unsqueeze(profile: EngineProfile, x: Operand, dim: int) -> Value | Tensor:
    """Add an axis of size 1. If a frame `(1, C, H, W)` gets the axis of time, the result is a value of one frame, `Frames`."""
    if isinstance(x, Tensor) and x.ndim == 4 and dim % 5 == TIME and len(x) == 1:
        return Frames((x,))
    shape = list(x.shape)
    shape.insert(dim % (len(shape) + 1), 1)
    return reshape(profile, x, shape)


def squeeze(profile: EngineProfile, x: Operand, dims: int | Sequence[int] | None = None) -> LazyPermutation | Tensor:
    """Remove axes of size 1. If a value of one frame loses its axis of time only, the result is that frame."""
    rank = len(x.shape)
    asked = range(rank) if dims is None else [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
    gone = [d for d in asked if x.shape[d] == 1]
    if isinstance(x, Frames) and gone == [TIME]:
        return x.tensors[0]
    return reshape(profile, x, [size for d, size in enumerate(x.shape) if d not in gone])


def cat(profile: EngineProfile, values: Sequence[Operand], dim: int = 0) -> Value | Tensor:
    """Concatenate values.

    Along time, the result of `Frames` is a longer tuple; along another axis they are concatenated frame by frame. Batches are concatenated to a
    batch, and channel-major values to a channel-major value.
    """
    rank = len(values[0].shape)
    dim %= rank
    if (
        rank == 5
        and dim in (1, TIME)
        and all(keeps_channel_major(profile, value) for value in values)
        and not all(isinstance(value, Frames) for value in values)
    ):
        return from_channel_major(concatenate([to_channel_major(value) for value in values], dim), *values[0].shape[3:])
    in_tuple = dim == TIME and any(isinstance(value, Frames) for value in values)
    if (
        dim in BATCH_AXIS
        and not in_tuple
        and any(map(is_batched, values))
        and all(is_batched(value) or fits_one_batch(profile, value) for value in values)
    ):
        return from_batch(concatenate([to_batch(value) for value in values], BATCH_AXIS[dim]))
    if rank != 5 or dim == 0 or not any(isinstance(value, Frames) for value in values):
        return rowwise(lambda rows: concatenate(rows, 1), [to_lazy(value) for value in values], dim)
    frames = [to_frames(value) for value in values]
    if dim == TIME:
        return Frames(sum((value.items for value in frames), ()))
    axis = FRAME_AXIS[dim]
    return to_frames([torch.cat(parts, dim=axis) for parts in zip(*(value.tensors for value in frames), strict=True)])


def stack(profile: EngineProfile, values: Sequence[Operand], dim: int = 0) -> Value | Tensor:
    return cat(profile, [unsqueeze(profile, value, dim) for value in values], dim)


def slice_tensor(profile: EngineProfile, x: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value | Tensor:
    """Slice a value. Along time, a slice of `Frames` takes entries of the tuple; along another axis each frame is sliced."""
    dim %= len(x.shape)
    kept = range(x.shape[dim])[start:end:step]
    if len(kept) == x.shape[dim]:
        return x
    if not len(kept):
        raise Unsupported("an empty slice")
    if dim == TIME and (isinstance(x, Frames) or is_batched(x)):
        return _selected(to_frames(x), kept)
    return _along_axis(lambda tensor, axis: aten.slice.Tensor(tensor, axis, kept.start, kept.stop, step), x, dim)


def select(profile: EngineProfile, x: Operand, dim: int, index: int) -> Value | Tensor:
    index %= x.shape[dim]
    return squeeze(profile, slice_tensor(profile, x, dim, index, index + 1), dim)


def split(profile: EngineProfile, x: Operand, sizes: int | Sequence[int], dim: int = 0) -> list[Value | Tensor]:
    length = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [slice_tensor(profile, x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def unbind(profile: EngineProfile, x: Operand, dim: int = 0) -> list[Value | Tensor]:
    return [select(profile, x, dim, index) for index in range(x.shape[dim])]


def slice_scatter(
    profile: EngineProfile, x: Operand, source: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value | Tensor:
    """Assign to a slice: the result is the concatenation of the entries before the slice, `source`, and the entries after the slice."""
    kept = range(x.shape[dim])[start:end:step]
    if step != 1:
        raise Unsupported("an assignment to a strided slice")
    parts = [slice_tensor(profile, x, dim, 0, kept.start)] if kept.start else []
    parts.append(source)
    if kept.stop < x.shape[dim]:
        parts.append(slice_tensor(profile, x, dim, kept.stop))
    return parts[0] if len(parts) == 1 else cat(profile, parts, dim)


def select_scatter(profile: EngineProfile, x: Operand, source: Operand, dim: int, index: int) -> Value | Tensor:
    index %= x.shape[dim]
    return slice_scatter(profile, x, unsqueeze(profile, source, dim), dim, index, index + 1)


def flip(profile: EngineProfile, x: Operand, dims: Sequence[int]) -> Value | Tensor:
    for dim in (d % len(x.shape) for d in dims):
        x = _selected(x, range(len(x.items))[::-1]) if isinstance(x, Frames) and dim == TIME else _along_axis(Tensor.flip, x, dim)
    return x


def roll(profile: EngineProfile, x: Operand, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value | Tensor:
    if not dims:
        return reshape(profile, roll(profile, reshape(profile, x, [1, -1]), shifts, [1]), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        cut = -shift % x.shape[dim]
        if cut:
            x = cat(profile, [slice_tensor(profile, x, dim, cut), slice_tensor(profile, x, dim, 0, cut)], dim)
    return x


def index_select(profile: EngineProfile, x: Operand, dim: int, index: Tensor) -> Value | Tensor:
    return _along_axis(lambda tensor, axis: tensor.index_select(axis, index), x, dim % len(x.shape))


def expand(profile: EngineProfile, x: Operand, sizes: Sequence[int], *, implicit: bool = False) -> Value | Tensor:
    """Expand axes of size 1. The entries are copied, because engines have no strides of 0."""
    rank = len(sizes)
    expanded = to_lazy(x).reshape((*[1] * (rank - len(x.shape)), *x.shape))
    shape = [old if new == -1 else new for old, new in zip(expanded.shape, sizes, strict=True)]
    for dim, (old, new) in enumerate(zip(expanded.shape, shape, strict=True)):
        if old != new:
            expanded = to_lazy(rowwise(partial(_repeated, count=new), [expanded], dim))
    return unwrap_low_rank(expanded)


def _repeated(rows: list[Tensor], count: int) -> Tensor:
    return rows[0].expand(-1, count, -1)


def pad(profile: EngineProfile, x: Operand, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Value | Tensor:
    """Pad a value. `amounts` has two numbers for each axis, the last axis first, as in `aten.pad`. Added frames of zeros are None in `Frames`."""
    if mode == "replicate":
        return _replicated(profile, x, amounts)
    if mode != "constant":
        raise Unsupported(f"padding of mode {mode!r}")
    if value or any(amounts[6:]) or len(x.shape) != 5:
        return _padded_with(x, amounts, value or 0.0)
    *spatial, front, back = (*amounts, *[0] * (6 - len(amounts)))[:6]
    padded = to_frames(x).map_zero_preserving(lambda frame: F.pad(frame, spatial) if any(spatial) else frame)
    if front < 0 or back < 0:
        return pad(
            profile, slice_tensor(profile, padded, TIME, max(0, -front), len(padded.items) + min(0, back)), [0, 0, 0, 0, max(0, front), max(0, back)]
        )
    return Frames((*[None] * front, *padded.items, *[None] * back))


def _replicated(profile: EngineProfile, x: Value | Tensor, amounts: Sequence[int]) -> Value | Tensor:
    """Pad each axis with copies of its first and its last entry."""
    for dim, before, after in _axes(x, amounts):
        length = x.shape[dim]
        ends = [slice_tensor(profile, x, dim, 0, 1)] * max(0, before), [slice_tensor(profile, x, dim, length - 1)] * max(0, after)
        x = cat(profile, [*ends[0], slice_tensor(profile, x, dim, max(0, -before), length + min(0, after)), *ends[1]], dim)
    return x


def _padded_with(x: Value | Tensor, amounts: Sequence[int], value: float) -> Value | Tensor:
    for dim, before, after in _axes(x, amounts):
        x = rowwise(partial(_rows_padded, amounts=(0, 0, before, after), value=value), [to_lazy(x)], dim)
    return x


def _rows_padded(rows: list[Tensor], amounts: Sequence[int], value: float) -> Tensor:
    return F.pad(rows[0], tuple(amounts), value=value)


def _axes(x: Value | Tensor, amounts: Sequence[int]) -> list[tuple[int, int, int]]:
    last = len(x.shape) - 1
    return [(last - i, amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2) if amounts[2 * i] or amounts[2 * i + 1]]


def _selected(x: Frames, kept: Sequence[int]) -> Frames:
    items = tuple(x.items[t] for t in kept)
    return Frames(items if any(item is not None for item in items) else tuple(x.tensors[t] for t in kept))


def _along_axis(function: Callable[[Tensor, Any], Tensor], x: Operand, dim: int) -> Value | Tensor:
    """Apply an operation along one axis: to each frame if a frame has that axis, otherwise to a tensor of rank 3."""
    if isinstance(x, Frames) and dim in FRAME_AXIS:
        return to_frames([function(frame, FRAME_AXIS[dim]) for frame in x.tensors])
    return rowwise(lambda rows: function(rows[0], 1), [to_lazy(x)], dim)


def rowwise(function: Callable[[list[Tensor]], Tensor], values: Sequence[LazyPermutation], dim: int) -> LazyPermutation | Tensor:
    """Apply an operation along one axis to tensors of rank 3: (the axes before it joined, the axis, the axes after it joined)."""
    shape = values[0].shape
    before, after = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    data = function([value.tensor((before, value.shape[dim], after)) for value in values])
    return unwrap_low_rank(LazyPermutation.of(data, (*shape[:dim], data.shape[1], *shape[dim + 1 :])))


def channel_shuffle(profile: EngineProfile, x: Value, groups: int) -> Value:
    """Compute a channel shuffle; only those that no pass could fold into a convolution get here."""
    if keeps_channel_major(profile, x):
        _, channels, *size = x.shape
        shuffled = _shuffled(to_channel_major(x), groups)
        return LazyPermutation.of(shuffled, (1, channels, *size))
    if isinstance(x, Frames):
        return x.map(partial(_shuffled, groups=groups))
    return from_batch(_shuffled(to_batch(x), groups))


def _shuffled(batch: Tensor, groups: int) -> Tensor:
    count, channels, height, width = batch.shape
    return batch.reshape(count, groups, channels // groups, height * width).transpose(1, 2).reshape(count, channels, height, width)


def filled(value: float | None = None) -> Callable[..., Tensor]:
    """Return the rule of a tensor filled with `value`, or, if that is None, with the number that the operator is called with."""

    def rule(profile: EngineProfile, like: Value | Sequence[int], *arguments: Any, **_: Any) -> Tensor:
        shape = like.shape if isinstance(like, Value | Tensor) else like
        return torch.full(tuple(shape), float(arguments[0] if value is None else value))

    return rule


def identity(profile: EngineProfile, x: Value, *_: Any, **__: Any) -> Value:
    """Return the input: in a graph without side effects the operators with this rule do no more than that."""
    return x


def copy(profile: EngineProfile, x: Operand, source: Operand, *_: Any) -> Value | Tensor:
    return expand(profile, source, x.shape)


RULES: dict[Any, Callable[..., Any]] = {
    aten.view.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.unsqueeze.default: unsqueeze,
    aten.squeeze.default: squeeze,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze,
    aten.cat.default: cat,
    aten.stack.default: stack,
    aten.slice.Tensor: slice_tensor,
    aten.select.int: select,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split,
    aten.unbind.int: unbind,
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: select_scatter,
    aten.flip.default: flip,
    aten.roll.default: roll,
    aten.index_select.default: index_select,
    aten.expand.default: expand,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: lambda profile, x, amounts, value=0.0: pad(profile, x, amounts, "constant", value),
    aten.replication_pad3d.default: lambda profile, x, amounts: pad(profile, x, amounts, "replicate"),
    aten.channel_shuffle.default: channel_shuffle,
    aten.zeros_like.default: filled(0),
    aten.ones_like.default: filled(1),
    aten.full_like.default: filled(),
    aten.new_zeros.default: lambda profile, _, shape, **__: filled(0)(profile, shape),
    aten.new_ones.default: lambda profile, _, shape, **__: filled(1)(profile, shape),
    aten.copy.default: copy,
    aten.clone.default: identity,
    aten.alias.default: identity,
    aten.detach.default: identity,
    aten.lift_fresh_copy.default: identity,
}
