"""Rules for data movement: reshapes, permutations, slices, concatenations, paddings, shuffles.

On a value held as `Frames`, an operation along time rearranges the tuple of frames, and one along another axis works on each frame. All other
values are handled as lazy permutations.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lazy import RANK, LazyPermutation, swapped_axes
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.values import (
    TIME,
    Frames,
    Value,
    concatenate,
    expand,
    fits_one_batch,
    from_batch,
    from_channel_major,
    is_batched,
    keeps_channel_major,
    rowwise,
    take_frames,
    to_batch,
    to_channel_major,
    to_frames,
    to_lazy,
    unwrap_low_rank,
)

aten = torch.ops.aten
FRAME_AXIS = {1: 1, 3: 2, 4: 3}
"""The axis of a frame `(1, C, H, W)` for each axis of a value `(1, C, T, H, W)` except time."""
BATCH_AXIS = {**FRAME_AXIS, TIME: 0}
"""The axis of a batch `(T, C, H, W)` for each axis of a value."""
Operand = Value | Tensor
FEW_ENTRIES = 64
"""An axis of at most this many entries is reversed entry by entry. The limit was not measured."""


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


def squeeze(profile: EngineProfile, x: Operand, dims: int | Sequence[int]) -> LazyPermutation | Tensor:
    """Remove axes of size 1. If a value of one frame loses its axis of time only, the result is that frame."""
    rank = len(x.shape)
    asked = [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
    gone = [d for d in asked if x.shape[d] == 1]
    if isinstance(x, Frames) and gone == [TIME]:
        return x.tensors[0]
    return reshape(profile, x, [size for d, size in enumerate(x.shape) if d not in gone])


def cat(profile: EngineProfile, values: Sequence[Operand], dim: int = 0) -> Value | Tensor:
    """Concatenate values.

    Along time, the result of `Frames` is a longer tuple; along another axis they are concatenated frame by frame. Batches are concatenated to a
    batch, and channel-major values to a channel-major value. Values without elements are left out.
    """
    values = [value for value in values if math.prod(value.shape)] or values[:1]
    if len(plain := [value for value in values if _is_plain(value)]) == len(values):
        return concatenate(plain, dim)
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
    if not len(kept):  # A part of a split: whatever reads it has been replaced by a constant.
        return torch.empty([0 if axis == dim else size for axis, size in enumerate(x.shape)])
    if _is_plain(x):
        sliced: Tensor = aten.slice.Tensor(x, dim, kept.start, kept.stop, step)
        return sliced
    if dim == TIME and (isinstance(x, Frames) or is_batched(x)):
        return _selected(to_frames(x), kept)
    return along_axis(lambda tensor, axis: aten.slice.Tensor(tensor, axis, kept.start, kept.stop, step), x, dim)


def select(profile: EngineProfile, x: Operand, dim: int, index: int) -> Value | Tensor:
    index %= x.shape[dim]
    if _is_plain(x):
        return x.select(dim, index)
    return squeeze(profile, slice_tensor(profile, x, dim, index, index + 1), dim)


def split(profile: EngineProfile, x: Operand, sizes: int | Sequence[int], dim: int = 0) -> list[Value | Tensor]:
    length = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [slice_tensor(profile, x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def unbind(profile: EngineProfile, x: Operand, dim: int = 0) -> list[Value | Tensor]:
    return [select(profile, x, dim, index) for index in range(x.shape[dim])]


def flip(profile: EngineProfile, x: Operand, dims: Sequence[int]) -> Value | Tensor:
    """Reverse axes. An axis of a few entries, such as the frames that a bidirectional layer reads backwards, is cut into them: engines lack flips."""
    for dim in (d % len(x.shape) for d in dims):
        if _is_plain(x) and x.shape[dim] <= FEW_ENTRIES:
            x = take_frames(x, range(x.shape[dim])[::-1], dim)
            continue
        x = _selected(x, range(len(x.items))[::-1]) if isinstance(x, Frames) and dim == TIME else along_axis(Tensor.flip, x, dim)
    return x


def roll(profile: EngineProfile, x: Operand, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value | Tensor:
    if not dims:
        return reshape(profile, roll(profile, reshape(profile, x, [1, -1]), shifts, [1]), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        cut = -shift % x.shape[dim]
        if cut:
            x = cat(profile, [slice_tensor(profile, x, dim, cut), slice_tensor(profile, x, dim, 0, cut)], dim)
    return x


def repeat(profile: EngineProfile, x: Operand, counts: Sequence[int]) -> Value | Tensor:
    """Repeat a value along its axes, of which new ones come first."""
    sizes = (*[1] * (len(counts) - len(x.shape)), *x.shape)
    value: Operand = to_lazy(x).reshape([one for size in sizes for one in (1, size)])
    value = expand(value, [one for count, size in zip(counts, sizes, strict=True) for one in (count, size)])
    return reshape(profile, value, [count * size for count, size in zip(counts, sizes, strict=True)])


def unfold(profile: EngineProfile, x: Operand, dim: int, size: int, step: int) -> Value | Tensor:
    """Slice windows of `size` entries along an axis, `step` apart; the windows' entries are a new last axis."""
    dim %= len(x.shape)
    starts = range(0, x.shape[dim] - size + 1, step)
    windows = rearranged(profile, x, dim, [start + i for start in starts for i in range(size)])
    split_axis = to_lazy(windows).reshape((*x.shape[:dim], len(starts), size, *x.shape[dim + 1 :]))
    axes = [d for d in range(len(split_axis.shape)) if d != dim + 1]
    return unwrap_low_rank(split_axis.permute([*axes, dim + 1]))


def diagonal(profile: EngineProfile, x: Operand, offset: int = 0, first: int = 0, second: int = 1) -> Value | Tensor:
    """Select the diagonal of two axes, which becomes the last axis."""
    rank = len(x.shape)
    first, second = first % rank, second % rank
    rows, columns = x.shape[first], x.shape[second]
    places = [row * columns + row + offset for row in range(rows) if 0 <= row + offset < columns]
    kept = [d for d in range(rank) if d not in (first, second)]
    joined = to_lazy(x).permute([*kept, first, second]).reshape((*(x.shape[d] for d in kept), rows * columns))
    return unwrap_low_rank(to_lazy(rearranged(profile, joined, len(kept), places)))


def expand_rule(profile: EngineProfile, x: Operand, sizes: Sequence[int], *, implicit: bool = False) -> Value | Tensor:
    """An expansion."""
    return expand(x, sizes)


SOURCES: dict[str, Callable[[int, int], int]] = {
    "replicate": lambda i, size: min(max(i, 0), size - 1),
    "reflect": lambda i, size: size - 1 - abs(size - 1 - abs(i)),
    "circular": lambda i, size: i % size,
}
"""For each mode of a padding: which of an axis' `size` entries stands at index `i` of the padded axis, where `i` is negative before them."""


def pad(profile: EngineProfile, x: Operand, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Value | Tensor:
    """A padding. `amounts` has two numbers for each axis, the last axis first, as in `aten.pad`. Frames of zeros become None."""
    if mode != "constant":
        for dim, before, after in _axes(x, amounts):
            x = rearranged(profile, x, dim, [SOURCES[mode](i, x.shape[dim]) for i in range(-before, x.shape[dim] + after)])
        return x
    if value or any(amounts[6:]) or len(x.shape) != 5 or x.shape[0] != 1:
        return _padded_with(x, amounts, value or 0.0)
    *spatial, front, back = (*amounts, *[0] * (6 - len(amounts)))[:6]
    padded = to_frames(x).map_zero_preserving(lambda frame: F.pad(frame, spatial) if any(spatial) else frame)
    return Frames((*[None] * front, *padded.items, *[None] * back))


def _padded_with(x: Value | Tensor, amounts: Sequence[int], value: float) -> Value | Tensor:
    for dim, before, after in _axes(x, amounts):
        x = rowwise(partial(_rows_padded, amounts=(0, 0, before, after), value=value), [to_lazy(x)], dim)
    return x


def _rows_padded(rows: list[Tensor], amounts: Sequence[int], value: float) -> Tensor:
    return F.pad(rows[0], tuple(amounts), value=value)


def _axes(x: Value | Tensor, amounts: Sequence[int]) -> list[tuple[int, int, int]]:
    last = len(x.shape) - 1
    return [(last - i, amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2) if amounts[2 * i] or amounts[2 * i + 1]]


def rearranged(profile: EngineProfile, x: Operand, dim: int, indices: Sequence[int]) -> Value | Tensor:
    """The entries of an axis at constant `indices`: some of the frames along time, along another axis a slice for each run of consecutive ones."""
    if isinstance(x, Frames) and dim == TIME:
        return _selected(x, indices)
    return along_axis(lambda tensor, axis: take_frames(tensor, indices, axis), x, dim)


def _selected(x: Frames, kept: Sequence[int]) -> Frames:
    items = tuple(x.items[t] for t in kept)
    return Frames(items if any(item is not None for item in items) else tuple(x.tensors[t] for t in kept))


def along_axis(function: Callable[[Tensor, Any], Tensor], x: Operand, dim: int) -> Value | Tensor:
    """Apply an operation along one axis: to each frame if a frame has that axis, otherwise to a tensor of rank 3."""
    if isinstance(x, Frames) and dim in FRAME_AXIS:
        return to_frames([function(frame, FRAME_AXIS[dim]) for frame in x.tensors])
    return rowwise(lambda rows: function(rows[0], 1), [to_lazy(x)], dim)


def _is_plain(x: Operand) -> TypeGuard[Tensor]:
    """Whether a value is a tensor of rank 4 or less, on which engines have the operation itself."""
    return isinstance(x, Tensor) and x.ndim <= RANK


def channel_shuffle(profile: EngineProfile, x: Operand, groups: int) -> Value | Tensor:
    """Compute a channel shuffle; only those that no pass could fold into a convolution get here."""
    if isinstance(x, Tensor):
        return _shuffled(x, groups)
    if keeps_channel_major(profile, x):
        _, channels, *size = x.shape
        shuffled = _shuffled(to_channel_major(x), groups)
        return LazyPermutation.of(shuffled, (1, channels, *size))
    if isinstance(x, Frames):
        return x.map(partial(_shuffled, groups=groups))
    return from_batch(_shuffled(to_batch(x), groups))


def _shuffled(batch: Tensor, groups: int) -> Tensor:
    count, channels, *size = batch.shape
    return batch.reshape(count, groups, channels // groups, math.prod(size)).transpose(1, 2).reshape(batch.shape)


def filled(value: float | None = None) -> Callable[..., Tensor]:
    """Return the rule of a tensor that is filled with `value`, or, if that is None, with the number that the operator is called with.

    It has the type that the operator is called with, or that of the other tensor.
    """

    def rule(profile: EngineProfile, like: Operand, *arguments: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return _filled(like, like.shape, arguments[0] if value is None else value, dtype)

    return rule


def new_filled(value: float) -> Callable[..., Tensor]:
    """Return the rule of a tensor of another shape that is filled with `value`."""
    return lambda profile, like, shape, *, dtype=None, **_: _filled(like, shape, value, dtype)


def _filled(like: Operand, shape: Sequence[int], value: float, dtype: torch.dtype | None) -> Tensor:
    own = like.tensors[0].dtype if isinstance(like, Frames) else to_lazy(like).data.dtype
    return torch.full(tuple(shape), value, dtype=dtype or own)


def identity(profile: EngineProfile, x: Value, *_: Any, **__: Any) -> Value:
    """Return the input: in a graph without side effects the operators with this rule do no more than that."""
    return x


RULES: dict[Any, Callable[..., Any]] = {
    aten.view.default: reshape,
    aten.reshape.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.unsqueeze.default: unsqueeze,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze,
    aten.cat.default: cat,
    aten.stack.default: stack,
    aten.slice.Tensor: slice_tensor,
    aten.select.int: select,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split,
    aten.unbind.int: unbind,
    aten.flip.default: flip,
    aten.roll.default: roll,
    aten.repeat.default: repeat,
    aten.unfold.default: unfold,
    aten.diagonal.default: diagonal,
    aten.expand.default: expand_rule,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: lambda profile, x, amounts, value=0.0: pad(profile, x, amounts, "constant", value),
    aten.channel_shuffle.default: channel_shuffle,
    aten.zeros_like.default: filled(0),
    aten.ones_like.default: filled(1),
    aten.full_like.default: filled(),
    aten.new_zeros.default: new_filled(0),
    aten.new_ones.default: new_filled(1),
    aten.clone.default: identity,
    aten.alias.default: identity,
    aten.detach.default: identity,
    aten.lift_fresh_copy.default: identity,
}
