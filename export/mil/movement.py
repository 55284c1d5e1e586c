"""Operations of ML Programs that move elements: slices, reshapes, paddings, rearrangements, constants of a shape."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.mil.settings import Numbers, Value, expect, numbers, tensor, torch_padding


def pad(*, x: Tensor, pad: Numbers, mode: str, constant_val: float) -> Tensor:
    """Pad the last axes, two numbers for each."""
    expect(mode in ("constant", "reflect", "replicate"), f"pad with mode {mode}")
    amounts = numbers(pad)
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if mode == "constant":
        return F.pad(x, torch_padding(pairs), value=constant_val)
    for axis, (before, after) in enumerate(pairs, x.ndim - len(pairs)):
        if before or after:
            x = x.index_select(axis, _outside(x.shape[axis], before, after, mode))
    return x


def _outside(size: int, before: int, after: int, mode: str) -> Tensor:
    """Return, for each element of a padded axis, the index of the one that it repeats."""
    places = torch.arange(-before, size + after)
    if mode == "reflect":
        expect(max(before, after) < size, f"pad of {before} and {after} reflected elements of {size}")
        return (size - 1 - (places.abs() - (size - 1)).abs()).abs()
    return places.clamp(0, size - 1)


def _slices(
    begin: Numbers,
    end: Numbers,
    stride: Numbers | None,
    begin_mask: Numbers | None,
    end_mask: Numbers | None,
    squeeze_mask: Numbers | None,
) -> list[slice | int]:
    """Return the index of each axis. A mask ignores the bound; a squeezed axis is indexed by `begin`."""
    none = [0] * len(begin)
    lists = [numbers(none if value is None else value) for value in (begin_mask, end_mask, squeeze_mask)]
    steps = [1] * len(begin) if stride is None else numbers(stride)
    return [
        first if squeezed else slice(None if free_begin else first, None if free_end else last, step)
        for first, last, step, free_begin, free_end, squeezed in zip(numbers(begin), numbers(end), steps, *lists, strict=True)
    ]


def slice_by_index(
    *,
    x: Tensor,
    begin: Numbers,
    end: Numbers,
    end_mask: Numbers | None = None,
    begin_mask: Numbers | None = None,
    stride: Numbers | None = None,
    squeeze_mask: Numbers | None = None,
) -> Tensor:
    where = _slices(begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis, index in enumerate(where):
        if isinstance(index, slice) and index.step is not None and index.step < 0:  # torch has no negative steps.
            x, where[axis] = x.index_select(axis, torch.tensor(range(*index.indices(x.shape[axis])), dtype=torch.int64)), slice(None)
    return x[tuple(where)]


def slice_update(
    *,
    x: Tensor,
    update: Tensor,
    begin: Numbers,
    end: Numbers,
    end_mask: Numbers | None = None,
    begin_mask: Numbers | None = None,
    stride: Numbers | None = None,
    squeeze_mask: Numbers | None = None,
) -> Tensor:
    where = _slices(begin, end, stride, begin_mask, end_mask, squeeze_mask)
    expect(all(isinstance(index, int) or index.step > 0 for index in where), "slice_update with a negative stride")
    result = x.clone()
    result[tuple(where)] = update
    return result


def slice_by_size(*, x: Tensor, begin: Numbers, size: Numbers) -> Tensor:
    """Take `size` elements of each axis; -1 for all that follow."""
    for axis, (first, count) in enumerate(zip(numbers(begin), numbers(size), strict=True)):
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


def concat(*, values: Sequence[Value], axis: int, interleave: bool) -> Tensor:
    parts = [tensor(value) for value in values]
    if not interleave:
        return torch.cat([part.reshape(1) if part.ndim == 0 else part for part in parts], axis)
    axis %= parts[0].ndim
    return torch.stack(parts, axis + 1).flatten(axis, axis + 1)


def split(*, x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Numbers | None = None) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, numbers(split_sizes), axis)
    expect(num_splits is not None and x.shape[axis] % num_splits == 0, f"split of {x.shape[axis]} elements into {num_splits} parts")
    return x.chunk(num_splits or 1, axis)


def reshape(*, x: Value, shape: Numbers) -> Tensor:
    """Reshape; a size of 0 keeps that of the same axis, -1 is found."""
    value = tensor(x)
    return value.reshape([size or value.shape[axis] for axis, size in enumerate(numbers(shape))])


def squeeze(*, x: Tensor, axes: Numbers | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(numbers(axes))


def expand_dims(*, x: Value, axes: Numbers) -> Tensor:
    value = tensor(x)
    for axis in sorted(axis % (value.ndim + len(axes)) for axis in numbers(axes)):
        value = value.unsqueeze(axis)
    return value


def band_part(*, x: Tensor, lower: int, upper: int) -> Tensor:
    """Keep so many diagonals below and above the main one; a negative number keeps all."""
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    kept = (torch.tensor(lower < 0) | (rows - columns <= lower)) & (torch.tensor(upper < 0) | (columns - rows <= upper))
    return torch.where(kept, x, torch.zeros_like(x))


def crop(*, x: Tensor, crop_height: Numbers, crop_width: Numbers) -> Tensor:
    (top, bottom), (left, right) = numbers(crop_height), numbers(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def fill(*, shape: Numbers, value: float) -> Tensor:
    return torch.full(numbers(shape), value)


MOVEMENT: dict[str, Callable[..., Any]] = {
    "band_part": band_part,
    "concat": concat,
    "crop": crop,
    "expand_dims": expand_dims,
    "fill": fill,
    "fill_like": lambda *, ref_tensor, value: torch.full(ref_tensor.shape, value),
    "flatten2d": lambda *, x, axis: x.reshape(x.shape[: axis % x.ndim].numel() if axis else 1, -1),
    "pad": pad,
    "pixel_shuffle": lambda *, x, upscale_factor: F.pixel_shuffle(x, upscale_factor),
    "pixel_unshuffle": lambda *, x, downscale_factor: F.pixel_unshuffle(x, downscale_factor),
    "range_1d": lambda *, end, start, step: torch.arange(start, end, step),
    "reshape": reshape,
    "reverse": lambda *, x, axes: x.flip(numbers(axes)),
    "shape": lambda *, x: torch.tensor(tuple(x.shape), dtype=torch.int32),
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "sliding_windows": lambda *, x, axis, size, stride: x.unfold(axis, size, stride).movedim(-1, axis % x.ndim + 1),
    "split": split,
    "squeeze": squeeze,
    "stack": lambda *, values, axis: torch.stack([tensor(value) for value in values], axis),
    "tile": lambda *, x, reps: x.repeat(numbers(reps)),
    "transpose": lambda *, x, perm: x.permute(numbers(perm)),
}
