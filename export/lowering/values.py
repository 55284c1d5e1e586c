"""The representations of a rank-5 value `(1, C, T, H, W)` by tensors of rank 4 or less, and the conversions between them.

| representation | memory | used by |
|---|---|---|
| `Frames` | T tensors `(1, C, H, W)` | what works frame by frame, or moves frames in time |
| batch | one tensor `(T, C, H, W)` | 2D operations on all frames in one call |
| channel-major | one tensor `(1, C, T, H * W)` | GEMMs, and 2D operations over (time, pixels) |
| `LazyPermutation` | one tensor, any order of axes | reshapes and permutations, which then cost nothing |

A batch and a channel-major value are held as a `LazyPermutation` with that order in memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.unsupported import Unsupported

TIME = 2
"""The axis of time of a value `(1, C, T, H, W)`."""


@dataclass(frozen=True)
class Frames:
    """A value `(1, C, T, H, W)` as a tensor `(1, C, H, W)` for each frame.

    Operations can then run depth first: one frame goes through several of them while it is in the processor's cache. None stands for
    a frame of zeros, so that convolutions can leave out their taps on it.
    """

    items: tuple[Tensor | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the original value, rank 5."""
        _, channels, height, width = next(frame.shape for frame in self.items if frame is not None)
        return (1, channels, len(self.items), height, width)

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """The frames, with a tensor of zeros wherever `items` has None."""
        _, channels, _, height, width = self.shape
        kind = next(frame.dtype for frame in self.items if frame is not None)
        zeros = torch.zeros(1, channels, height, width, dtype=kind)
        return tuple(zeros if frame is None else frame for frame in self.items)

    @cached_property
    def lazy(self) -> LazyPermutation:
        """The frames concatenated on the batch axis, in the shape of the original value."""
        return from_batch(concatenate(self.tensors, 0))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Frames":
        """Return the value with a function applied to each frame."""
        return Frames(tuple(function(frame) for frame in self.tensors))

    def map_zero_preserving(self, function: Callable[[Tensor], Tensor]) -> "Frames":
        """Do the same as `map` for a function with f(0) = 0, so that frames of zeros stay None."""
        return Frames(tuple(None if frame is None else function(frame) for frame in self.items))


Value = Frames | LazyPermutation
"""How a value of rank 5 or more is represented while a graph is lowered."""


def to_frames(value: Value | Tensor | Sequence[Tensor]) -> Frames:
    """Convert a value `(1, C, T, H, W)`, or a sequence of its frames, to frames.

    Raises:
        Unsupported: the value has another rank, or several entries on its batch axis.
    """
    if isinstance(value, Frames):
        return value
    if isinstance(value, Sequence):
        return Frames(tuple(value))
    lazy = to_lazy(value)
    if len(lazy.shape) != 5 or lazy.shape[0] != 1:
        raise Unsupported("a value that is not one batch of frames")
    return Frames(lazy.frames)


def to_lazy(value: Value | Tensor) -> LazyPermutation:
    """Convert any value to a lazy permutation of one tensor."""
    if isinstance(value, Frames):
        return value.lazy
    return value if isinstance(value, LazyPermutation) else LazyPermutation.of(value)


def unwrap_low_rank(value: LazyPermutation) -> LazyPermutation | Tensor:
    """Convert the result of a rule to a plain tensor if its rank is 4 or less, so that the operations on it need no rule."""
    return value if len(value.shape) > 4 else value.tensor(value.shape)


def is_batched(value: object) -> bool:
    """Whether the frames of a value `(1, C, T, H, W)` lie in memory one after the other, as `(T, C, H, W)`."""
    return isinstance(value, LazyPermutation) and len(value.shape) == 5 and value.shape[0] == 1 and (value.shape[TIME] == 1 or value.outermost(TIME))


def to_batch(value: Value | Tensor) -> Tensor:
    """Return the frames of a value `(1, C, T, H, W)` on the batch axis, `(T, C, H, W)`."""
    lazy = to_lazy(value)
    _, channels, count, height, width = lazy.shape
    return lazy.permute((0, 2, 1, 3, 4)).tensor((count, channels, height, width))


def from_batch(batch: Tensor) -> LazyPermutation:
    """Return the value `(1, C, T, H, W)` whose frames are `batch`, `(T, C, H, W)`."""
    return LazyPermutation.of(batch, (1, *batch.shape)).permute((0, 2, 1, 3, 4))


def fits_one_batch(profile: EngineProfile, value: Value | Tensor) -> bool:
    """Whether the frames of a value `(1, C, T, H, W)` are computed together, in one operation (`EngineProfile.batch_limit`)."""
    return len(value.shape) == 5 and value.shape[0] == 1 and math.prod(value.shape) <= profile.batch_limit


def keeps_channel_major(profile: EngineProfile, value: Value | Tensor) -> bool:
    """Whether the frames of a value `(1, C, T, H, W)` are computed together in channel-major order; a value that is a batch already stays one."""
    return profile.channel_major and fits_one_batch(profile, value) and (value.shape[TIME] == 1 or not is_batched(value))


def to_channel_major(value: Value | Tensor) -> Tensor:
    """Return a value `(1, C, T, H, W)` as one channel-major tensor, `(1, C, T, H * W)`."""
    _, channels, count, height, width = value.shape
    if isinstance(value, Frames):
        return concatenate([frame.reshape(1, channels, 1, height * width) for frame in value.tensors], TIME)
    return to_lazy(value).tensor((1, channels, count, height * width))


def from_channel_major(data: Tensor, height: int, width: int) -> LazyPermutation:
    """Return the value `(1, C, T, height, width)` of channel-major data, whose first axes are `(1, C, T)`."""
    return LazyPermutation.of(data, (*data.shape[:3], height, width))


def temporal_taps(weight: Tensor | Value) -> list[Tensor]:
    """Return the 2D kernel `(O, C, kH, kW)` of each temporal tap of a weight `(O, C, kT, kH, kW)`, which may be computed in the step."""
    if isinstance(weight, Tensor):
        return list(weight.unbind(2))
    out, channels, count, height, width = weight.shape
    taps = to_lazy(weight).permute((2, 0, 1, 3, 4)).tensor((count, out, channels, height * width))
    return [taps[k].reshape(out, channels, height, width) for k in range(count)]


def take_frames(data: Tensor, indices: Sequence[int], dim: int = 0) -> Tensor:
    """Return the entries of an axis at `indices`: a slice for each run of consecutive ones, and no operation if they are all entries in order."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1][1] += 1
        else:
            runs.append([index, index + 1])
    if runs == [[0, data.shape[dim]]]:
        return data
    return concatenate([torch.ops.aten.slice.Tensor(data, dim, start, stop) for start, stop in runs], dim)


def concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate tensors; a single one is returned as it is, because XNNPACK has no concatenation of one value."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def rowwise(function: Callable[[list[Tensor]], Tensor], values: Sequence[LazyPermutation], dim: int) -> LazyPermutation | Tensor:
    """Apply an operation along one axis to tensors of rank 3: (the axes before it joined, the axis, the axes after it joined)."""
    shape = values[0].shape
    before, after = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    data = function([value.tensor((before, value.shape[dim], after)) for value in values])
    return unwrap_low_rank(LazyPermutation.of(data, (*shape[:dim], data.shape[1], *shape[dim + 1 :])))


def expand(x: Value | Tensor, sizes: Sequence[int]) -> LazyPermutation | Tensor:
    """Expand a value to `sizes`, of which -1 keeps the size, by copying: engines have no strides of 0."""
    expanded = to_lazy(x).reshape((*[1] * (len(sizes) - len(x.shape)), *x.shape))
    shape = [old if new == -1 else new for old, new in zip(expanded.shape, sizes, strict=True)]
    for dim, (old, new) in enumerate(zip(expanded.shape, shape, strict=True)):
        if old != new:
            expanded = to_lazy(rowwise(partial(_repeated, count=new), [expanded], dim))
    return unwrap_low_rank(expanded)


def _repeated(rows: list[Tensor], count: int) -> Tensor:
    """Repeat the single entry of the middle axis; as a product with ones, for which all engines have kernels."""
    (data,) = rows
    return data * torch.ones(1, count, 1) if data.dtype == torch.float32 else data.expand(-1, count, -1)
