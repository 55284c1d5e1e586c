"""Operations that move, pick, join or repeat what is there: along time on the list of frames, elsewhere on frames or views."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import (
    TIME,
    Frames,
    NoRule,
    Value,
    concatenate,
    frames_of,
    in_planes,
    is_stack,
    planes,
    planes_of,
    result,
    small,
    stack_of,
    stacked,
    view_of,
)
from clipstep.export.lowering.view import View, exchanged

aten = torch.ops.aten
FRAME_AXIS = {1: 1, 3: 2, 4: 3}
"""Where the axes of a value lie in one of its frames."""
STACK_AXIS = {**FRAME_AXIS, TIME: 0}
"""Where they lie in its frames stacked on the batch axis."""
Operand = Value | Tensor


def reshape(x: Operand, shape: Sequence[int]) -> View | Tensor:
    return result(view_of(x).reshape(shape))


def permute(x: Operand, axes: Sequence[int]) -> View | Tensor:
    return result(view_of(x).permute(axes))


def transpose(x: Operand, first: int, second: int) -> View | Tensor:
    view = view_of(x)
    return permute(view, exchanged(len(view.shape), first, second))


def unsqueeze(x: Operand, dim: int) -> Value | Tensor:
    """A frame that gets a time axis is a value of one frame."""
    if isinstance(x, Tensor) and x.ndim == 4 and dim % 5 == TIME and len(x) == 1:
        return Frames((x,))
    shape = list(x.shape)
    shape.insert(dim % (len(shape) + 1), 1)
    return reshape(x, shape)


def squeeze(x: Operand, dims: int | Sequence[int] | None = None) -> View | Tensor:
    """Also of a value of one frame, which is then that frame."""
    rank = len(x.shape)
    asked = range(rank) if dims is None else [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
    gone = [d for d in asked if x.shape[d] == 1]
    if isinstance(x, Frames) and gone == [TIME]:
        return x.exact[0]
    return reshape(x, [size for d, size in enumerate(x.shape) if d not in gone])


def cat(values: Sequence[Operand], dim: int = 0) -> Value | Tensor:
    """Of frames along time a longer list, along channels, rows and columns frame by frame."""
    rank = len(values[0].shape)
    dim %= rank
    if rank == 5 and dim in (1, TIME) and all(map(in_planes, values)) and not all(isinstance(value, Frames) for value in values):
        return planes(concatenate([planes_of(value) for value in values], dim), *values[0].shape[3:])
    listed = dim == TIME and any(isinstance(value, Frames) for value in values)
    if dim in STACK_AXIS and not listed and any(map(is_stack, values)) and all(is_stack(value) or small(value) for value in values):
        return stacked(concatenate([stack_of(value) for value in values], STACK_AXIS[dim]))
    if rank != 5 or dim == 0 or not any(isinstance(value, Frames) for value in values):
        return rowwise(lambda rows: concatenate(rows, 1), [view_of(value) for value in values], dim)
    frames = [frames_of(value) for value in values]
    if dim == TIME:
        return Frames(sum((value.items for value in frames), ()))
    axis = FRAME_AXIS[dim]
    return frames_of([torch.cat(parts, dim=axis) for parts in zip(*(value.exact for value in frames), strict=True)])


def stack(values: Sequence[Operand], dim: int = 0) -> Value | Tensor:
    return cat([unsqueeze(value, dim) for value in values], dim)


def slice_tensor(x: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value | Tensor:
    """Of frames along time some of the list."""
    dim %= len(x.shape)
    kept = range(x.shape[dim])[start:end:step]
    if len(kept) == x.shape[dim]:
        return x
    if not len(kept):
        raise NoRule("an empty slice")
    if dim == TIME and (isinstance(x, Frames) or is_stack(x)):
        return _picked(frames_of(x), kept)
    return _along(lambda tensor, axis: aten.slice.Tensor(tensor, axis, kept.start, kept.stop, step), x, dim)


def select(x: Operand, dim: int, index: int) -> Value | Tensor:
    index %= x.shape[dim]
    return squeeze(slice_tensor(x, dim, index, index + 1), dim)


def split(x: Operand, sizes: int | Sequence[int], dim: int = 0) -> list[Value | Tensor]:
    length = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [slice_tensor(x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def unbind(x: Operand, dim: int = 0) -> list[Value | Tensor]:
    return [select(x, dim, index) for index in range(x.shape[dim])]


def slice_scatter(x: Operand, source: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value | Tensor:
    """What stays before, the source, what stays behind."""
    kept = range(x.shape[dim])[start:end:step]
    if step != 1:
        raise NoRule("an assignment to every other place")
    parts = [slice_tensor(x, dim, 0, kept.start)] if kept.start else []
    parts.append(source)
    if kept.stop < x.shape[dim]:
        parts.append(slice_tensor(x, dim, kept.stop))
    return parts[0] if len(parts) == 1 else cat(parts, dim)


def select_scatter(x: Operand, source: Operand, dim: int, index: int) -> Value | Tensor:
    index %= x.shape[dim]
    return slice_scatter(x, unsqueeze(source, dim), dim, index, index + 1)


def flip(x: Operand, dims: Sequence[int]) -> Value | Tensor:
    for dim in (d % len(x.shape) for d in dims):
        x = _picked(x, range(len(x.items))[::-1]) if isinstance(x, Frames) and dim == TIME else _along(Tensor.flip, x, dim)
    return x


def roll(x: Operand, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value | Tensor:
    if not dims:
        return reshape(roll(reshape(x, [1, -1]), shifts, [1]), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        cut = -shift % x.shape[dim]
        if cut:
            x = cat([slice_tensor(x, dim, cut), slice_tensor(x, dim, 0, cut)], dim)
    return x


def index_select(x: Operand, dim: int, index: Tensor) -> Value | Tensor:
    return _along(lambda tensor, axis: tensor.index_select(axis, index), x, dim % len(x.shape))


def expand(x: Operand, sizes: Sequence[int], *, implicit: bool = False) -> Value | Tensor:
    """By copies: engines have no strides of 0."""
    rank = len(sizes)
    view = view_of(x).reshape((*[1] * (rank - len(x.shape)), *x.shape))
    shape = [old if new == -1 else new for old, new in zip(view.shape, sizes, strict=True)]
    for dim, (old, new) in enumerate(zip(view.shape, shape, strict=True)):
        if old != new:
            view = view_of(rowwise(partial(_repeated, count=new), [view], dim))
    return result(view)


def _repeated(rows: list[Tensor], count: int) -> Tensor:
    return rows[0].expand(-1, count, -1)


def pad(x: Operand, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Value | Tensor:
    """``amounts`` as torch gives them: last axis first, a pair an axis."""
    if mode == "replicate":
        return _replicated(x, amounts)
    if mode != "constant":
        raise NoRule(f"padding of mode {mode!r}")
    if value or any(amounts[6:]) or len(x.shape) != 5:
        return _padded_with(x, amounts, value or 0.0)
    *plane, front, back = (*amounts, *[0] * (6 - len(amounts)))[:6]
    padded = frames_of(x).map(lambda frame: F.pad(frame, plane) if any(plane) else frame)
    if front < 0 or back < 0:
        return pad(slice_tensor(padded, TIME, max(0, -front), len(padded.items) + min(0, back)), [0, 0, 0, 0, max(0, front), max(0, back)])
    return Frames((*[None] * front, *padded.items, *[None] * back))


def _replicated(x: Value | Tensor, amounts: Sequence[int]) -> Value | Tensor:
    """The first and the last of each axis are joined on as often as asked for."""
    for dim, before, behind in _axes(x, amounts):
        length = x.shape[dim]
        ends = [slice_tensor(x, dim, 0, 1)] * max(0, before), [slice_tensor(x, dim, length - 1)] * max(0, behind)
        x = cat([*ends[0], slice_tensor(x, dim, max(0, -before), length + min(0, behind)), *ends[1]], dim)
    return x


def _padded_with(x: Value | Tensor, amounts: Sequence[int], value: float) -> Value | Tensor:
    for dim, before, behind in _axes(x, amounts):
        x = rowwise(partial(_rows_padded, amounts=(0, 0, before, behind), value=value), [view_of(x)], dim)
    return x


def _rows_padded(rows: list[Tensor], amounts: Sequence[int], value: float) -> Tensor:
    return F.pad(rows[0], tuple(amounts), value=value)


def _axes(x: Value | Tensor, amounts: Sequence[int]) -> list[tuple[int, int, int]]:
    last = len(x.shape) - 1
    return [(last - i, amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2) if amounts[2 * i] or amounts[2 * i + 1]]


def _picked(x: Frames, kept: Sequence[int]) -> Frames:
    items = tuple(x.items[t] for t in kept)
    return Frames(items if any(item is not None for item in items) else tuple(x.exact[t] for t in kept))


def _along(function: Callable[[Tensor, Any], Tensor], x: Operand, dim: int) -> Value | Tensor:
    """An operation along one axis: on each frame along its own axes, otherwise on rows."""
    if isinstance(x, Frames) and dim in FRAME_AXIS:
        return frames_of([function(frame, FRAME_AXIS[dim]) for frame in x.exact])
    return rowwise(lambda rows: function(rows[0], 1), [view_of(x)], dim)


def rowwise(function: Callable[[list[Tensor]], Tensor], views: Sequence[View], dim: int) -> View | Tensor:
    """An operation along one axis of views, whose other axes are joined to those before and those behind it."""
    shape = views[0].shape
    before, behind = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    data = function([view.tensor((before, view.shape[dim], behind)) for view in views])
    return result(View.of(data, (*shape[:dim], data.shape[1], *shape[dim + 1 :])))


def channel_shuffle(x: Value, groups: int) -> Value:
    """Where no convolution before it writes its channels in that order: whole planes move."""
    if in_planes(x):
        _, channels, *size = x.shape
        shuffled = _shuffled(planes_of(x), groups)
        return View.of(shuffled, (1, channels, *size))
    if isinstance(x, Frames):
        return x.each(partial(_shuffled, groups=groups))
    return stacked(_shuffled(stack_of(x), groups))


def _shuffled(stack: Tensor, groups: int) -> Tensor:
    count, channels, height, width = stack.shape
    return stack.reshape(count, groups, channels // groups, height * width).transpose(1, 2).reshape(count, channels, height, width)


def filled(value: float | None = None) -> Callable[..., Tensor]:
    """A constant of one number: the last argument unless given."""

    def rule(like: Value | Sequence[int], *arguments: Any, **_: Any) -> Tensor:
        shape = like.shape if isinstance(like, Value | Tensor) else like
        return torch.full(tuple(shape), float(arguments[0] if value is None else value))

    return rule


def same(x: Value, *_: Any, **__: Any) -> Value:
    """Operations that change nothing in a graph without side effects."""
    return x


def copy(x: Operand, source: Operand, *_: Any) -> Value | Tensor:
    return expand(source, x.shape)


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
    aten.constant_pad_nd.default: lambda x, amounts, value=0.0: pad(x, amounts, "constant", value),
    aten.replication_pad3d.default: lambda x, amounts: pad(x, amounts, "replicate"),
    aten.channel_shuffle.default: channel_shuffle,
    aten.zeros_like.default: filled(0),
    aten.ones_like.default: filled(1),
    aten.full_like.default: filled(),
    aten.new_zeros.default: lambda _, shape, **__: filled(0)(shape),
    aten.new_ones.default: lambda _, shape, **__: filled(1)(shape),
    aten.copy.default: copy,
    aten.clone.default: same,
    aten.alias.default: same,
    aten.detach.default: same,
    aten.lift_fresh_copy.default: same,
}
