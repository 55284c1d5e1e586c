"""A rank-5 value of the original graph with N = 1, held as one rank-4 tensor."""

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
    ``axes``; nothing is copied before an operation asks for one order or the other.
    """

    data: Tensor
    axes: tuple[int, ...] = FRAMES_FIRST

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the original value, rank 5."""
        return (1, *(self.data.shape[self.axes.index(axis)] for axis in ORIGINAL))

    @cached_property
    def stacked(self) -> Tensor:
        """``(T, C, H, W)``: the frames stacked on the batch axis of 2D operations."""
        return self._ordered(FRAMES_FIRST)

    @cached_property
    def original(self) -> Tensor:
        """``(C, T, H, W)``: the original order."""
        return self._ordered(ORIGINAL)

    def _ordered(self, axes: tuple[int, ...]) -> Tensor:
        return self.data if self.axes == axes else self.data.permute([self.axes.index(axis) for axis in axes])


def gather_frames(stacked: Tensor, indices: list[int | None]) -> Tensor:
    """Those frames of ``(T, C, H, W)`` in that order, a frame of zeros for each None; at least one must be given.

    Only contiguous slices, concatenation and padding, which every target has and which copy whole frames.
    """
    given = [i for i, index in enumerate(indices) if index is not None]
    front, back = given[0], len(indices) - 1 - given[-1]
    runs: list[list[int]] = []
    for index in indices[front : len(indices) - back]:
        if index is None:
            raise ValueError("a frame of zeros between given ones")
        if runs and runs[-1][1] == index:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    parts = [stacked if (start, end) == (0, len(stacked)) else stacked[start:end] for start, end in runs]
    frames = parts[0] if len(parts) == 1 else torch.cat(parts)
    return pad_frames(frames, front, back)


def pad_frames(stacked: Tensor, front: int, back: int) -> Tensor:
    """``front`` frames of zeros before and ``back`` after those of ``(T, C, H, W)``."""
    return torch.nn.functional.pad(stacked, (0, 0, 0, 0, 0, 0, front, back)) if front or back else stacked
