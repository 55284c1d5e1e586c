"""Gathering and scattering of elements by computed or constant indices in ML Programs."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipstep.export.mil.settings import Value, expect, tensor

REDUCED = {"mul": "prod", "div": "prod", "max": "amax", "min": "amin"}
"""torch's name of how `scatter_reduce` combines values."""


def _places(indices: Value, size: int) -> Tensor:
    """Return indices as int64. Negative ones count from the end, as in programs for iOS 15 and 16.

    Raises:
        ClipstepError: one is out of range.
    """
    places = tensor(indices).to(torch.int64)
    expect(not places.numel() or (-size <= int(places.min()) and int(places.max()) < size), f"indices out of range for {size} elements")
    return torch.where(places < 0, places + size, places)


def gather(*, x: Tensor, indices: Value, axis: int, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    axis %= x.ndim
    places = _places(indices, x.shape[axis])
    shape = (*x.shape[:axis], *places.shape[batch_dims:], *x.shape[axis + 1 :])
    if not batch_dims:
        return x.index_select(axis, places.reshape(-1)).reshape(shape)
    batch, before, after = math.prod(x.shape[:batch_dims]), math.prod(x.shape[batch_dims:axis]), math.prod(x.shape[axis + 1 :])
    wanted = places.reshape(batch, 1, -1, 1).expand(batch, before, -1, after)
    return x.reshape(batch, before, x.shape[axis], after).gather(2, wanted).reshape(shape)


def gather_along_axis(*, x: Tensor, indices: Tensor, axis: int, validate_indices: bool = False) -> Tensor:
    return x.gather(axis, _places(indices, x.shape[axis]))


def gather_nd(*, x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    depth = indices.shape[-1]
    sizes = x.shape[batch_dims : batch_dims + depth]
    places = [_places(part, size) for part, size in zip(indices.unbind(-1), sizes, strict=True)]
    if not batch_dims:
        return x[tuple(places)]
    batch = math.prod(x.shape[:batch_dims])
    rest = [part.reshape(batch, -1) for part in places]
    found = x.reshape(batch, *x.shape[batch_dims:])[(torch.arange(batch)[:, None], *rest)]
    return found.reshape(*indices.shape[:-1], *x.shape[batch_dims + depth :])


def scatter_along_axis(*, data: Tensor, indices: Tensor, updates: Tensor, axis: int, mode: str, validate_indices: bool = False) -> Tensor:
    places = _places(indices, data.shape[axis])
    if mode == "update":
        return data.scatter(axis, places, updates)
    if mode in ("add", "sub"):
        return data.scatter_add(axis, places, updates if mode == "add" else -updates)
    expect(mode in REDUCED, f"scatter with mode {mode}")
    return data.scatter_reduce(axis, places, 1 / updates if mode == "div" else updates, REDUCED[mode])


def scatter(*, data: Tensor, indices: Tensor, updates: Tensor, axis: int, mode: str, validate_indices: bool = False) -> Tensor:
    axis %= data.ndim
    places = indices.reshape(-1, *[1] * (data.ndim - axis - 1)).expand(updates.shape)
    return scatter_along_axis(data=data, indices=places, updates=updates, axis=axis, mode=mode)


def scatter_nd(*, data: Tensor, indices: Tensor, updates: Tensor, mode: str, validate_indices: bool = False) -> Tensor:
    depth = indices.shape[-1]
    sizes = data.shape[:depth]
    places = sum(_places(part, size) * math.prod(sizes[i + 1 :]) for i, (part, size) in enumerate(zip(indices.unbind(-1), sizes, strict=True)))
    rows = data.reshape(math.prod(sizes), -1)
    values = updates.reshape(-1, rows.shape[1])
    result = scatter(data=rows, indices=tensor(places).reshape(-1), updates=values, axis=0, mode=mode)
    return result.reshape(data.shape)


def one_hot(*, indices: Tensor, one_hot_vector_size: int, axis: int, on_value: float, off_value: float) -> Tensor:
    axis = axis % (indices.ndim + 1)
    size = int(one_hot_vector_size)
    classes = torch.arange(size).reshape(-1, *[1] * (indices.ndim - axis))
    return torch.where(indices.unsqueeze(axis) == classes, torch.tensor(on_value), torch.tensor(off_value))


INDEXING: dict[str, Callable[..., Any]] = {
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "one_hot": one_hot,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
}
