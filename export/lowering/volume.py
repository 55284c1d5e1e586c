"""A rank-5 value of the original graph with N = 1, held as rank-4 tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

FRAMES_FIRST = (2, 1, 3, 4)
ORIGINAL = (1, 2, 3, 4)


@dataclass(frozen=True)
class Volume:
    """``(1, C, T, H, W)`` without its first axis, the other four in any order.

    ``axes[i]`` says which axis of the original value ``data``'s axis ``i`` is. Transposing a volume only changes
    ``axes``; nothing is copied before an operation asks for its frames.
    """

    data: Tensor
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the original value, rank 5."""
        return (1, *(self.data.shape[self.axes.index(axis)] for axis in ORIGINAL))

    @cached_property
    def frames(self) -> "Frames":
        """The volume cut into frames."""
        stacked = self._ordered(FRAMES_FIRST)
        return Frames(tuple(stacked[t : t + 1] for t in range(len(stacked))), stacked.shape[1])

    @cached_property
    def original(self) -> Tensor:
        """``(C, T, H, W)``: the original order."""
        return self._ordered(ORIGINAL)

    @property
    def volume(self) -> "Volume":
        return self

    def _ordered(self, axes: tuple[int, ...]) -> Tensor:
        return self.data if self.axes == axes else self.data.permute([self.axes.index(axis) for axis in axes])


@dataclass(frozen=True)
class Frames:
    """The same value as a list of frames ``(1, C or more, H, W)``: what convolutions and pools compute on.

    A step then goes depth first, with a frame in the processor's cache. None is a frame of zeros. A frame may hold
    more channels than the original value's ``channels``, because kernels are fastest on multiples of 8; what is in
    them is finite, and otherwise nobody's business. All frames are of one shape.
    """

    items: tuple[Tensor | None, ...]
    channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the original value, rank 5."""
        return (1, self.channels, len(self.items), *self._given.shape[2:])

    @property
    def width(self) -> int:
        """The channels of a frame, the further ones included."""
        return self._given.shape[1]

    @property
    def frames(self) -> "Frames":
        return self

    @cached_property
    def exact(self) -> tuple[Tensor, ...]:
        """The frames without further channels, those of zeros written out."""
        zeros = torch.zeros(1, self.channels, *self.shape[3:])
        return tuple(zeros if frame is None else frame if self.width == self.channels else frame[:, : self.channels] for frame in self.items)

    @cached_property
    def volume(self) -> Volume:
        """The frames stacked on the batch axis."""
        return Volume(concatenate(self.exact, 0), FRAMES_FIRST)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Frames":
        """The value with an operation done on each frame that keeps zeros and does not mix channels."""
        return Frames(tuple(None if frame is None else function(frame) for frame in self.items), self.channels)

    @property
    def _given(self) -> Tensor:
        return next(frame for frame in self.items if frame is not None)


def pad_channels(value: Tensor, width: int) -> Tensor:
    """``(A, C, H, W)`` with zeros appended on its second axis up to ``width``."""
    missing = width - value.shape[1]
    return torch.nn.functional.pad(value, (0, 0, 0, 0, 0, missing)) if missing else value


def concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """``torch.cat``, but nothing for a single value: XNNPACK does not take that."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)
