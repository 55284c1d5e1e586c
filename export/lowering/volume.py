"""A rank-5 value of the original graph with N = 1, held as rank-4 tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

    With ``block`` = k, ``data`` is ``(T / k, k * C, H, W)``: k consecutive frames share a batch position, the earlier
    one in the lower channels. ``lead`` ``(L, C, H, W)`` holds frames that come before those of ``data``.
    """

    data: Tensor
    axes: tuple[int, ...] = FRAMES_FIRST
    block: int = 1
    lead: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the original value, rank 5."""
        channels, frames, height, width = (self.data.shape[self.axes.index(axis)] for axis in ORIGINAL)
        return (1, channels // self.block, frames * self.block + self._lead_frames, height, width)

    @cached_property
    def stacked(self) -> Tensor:
        """``(T, C, H, W)``: the frames stacked on the batch axis of 2D operations."""
        return self.plain._frames_first

    @cached_property
    def original(self) -> Tensor:
        """``(C, T, H, W)``: the original order."""
        return self.plain._ordered(ORIGINAL)

    @cached_property
    def plain(self) -> "Volume":
        """The same value with neither block nor lead."""
        return self if self.block == 1 and self.lead is None else Volume(gather_frames(self, range(self.shape[2])))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Volume":
        """The volume with an operation done that mixes neither frames nor channels."""
        return replace(self, data=function(self.data), lead=None if self.lead is None else function(self.lead))

    @property
    def _lead_frames(self) -> int:
        return 0 if self.lead is None else len(self.lead)

    @cached_property
    def _frames_first(self) -> Tensor:
        return self._ordered(FRAMES_FIRST)

    def _ordered(self, axes: tuple[int, ...]) -> Tensor:
        return self.data if self.axes == axes else self.data.permute([self.axes.index(axis) for axis in axes])

    def _position(self, frame: int) -> tuple[bool, int, int]:
        """Where a frame lies: whether in ``lead``, at which batch position, in which of the channel blocks."""
        inside = frame - self._lead_frames
        return (True, frame, 0) if inside < 0 else (False, inside // self.block, inside % self.block)

    def _cut(self, lead: bool, start: int, end: int, first_block: int, blocks: int) -> Tensor:
        source = self.lead if lead else self._frames_first
        assert source is not None
        if (start, end) != (0, len(source)):
            source = source[start:end]
        channels = self.shape[1]
        whole = blocks * channels == source.shape[1]
        return source if whole else source[:, first_block * channels : (first_block + blocks) * channels]


def gather_frames(x: Volume, indices: Sequence[int | None]) -> Tensor:
    """Those frames in that order, ``(len(indices), C, H, W)``, a frame of zeros for each None; at least one is given.

    Only contiguous slices, concatenation and padding, which every target has and which copy whole frames.
    """
    front, runs, back = _runs(x, indices)
    parts = [x._cut(*run, 1) for run in runs]
    return pad_frames(concatenate(parts, 0), front, back)


def gather_columns(x: Volume, rows: Sequence[Sequence[int | None]]) -> Tensor:
    """The frames of each row stacked on the batch axis, the rows side by side on the channel axis.

    Rows that lie side by side already are taken in one piece.
    """
    columns: list[Tensor] = []
    position = 0
    while position < len(rows):
        front, runs, back = _runs(x, rows[position])
        blocks = 1
        if len(runs) == 1 and not front and not back:
            lead, start, end, first = runs[0]
            while position + blocks < len(rows) and _runs(x, rows[position + blocks]) == (0, [(lead, start, end, first + blocks)], 0):
                blocks += 1
            columns.append(x._cut(lead, start, end, first, blocks))
        else:
            columns.append(gather_frames(x, rows[position]))
        position += blocks
    return concatenate(columns, 1)


def concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """``torch.cat``, but nothing for a single value: XNNPACK does not take that."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def pad_frames(stacked: Tensor, front: int, back: int) -> Tensor:
    """``front`` frames of zeros before and ``back`` after those of ``(T, C, H, W)``."""
    return torch.nn.functional.pad(stacked, (0, 0, 0, 0, 0, 0, front, back)) if front or back else stacked


def _runs(x: Volume, indices: Sequence[int | None]) -> tuple[int, list[tuple[bool, int, int, int]], int]:
    """Frames of zeros at the front, runs of frames at successive batch positions of one channel block, zeros at the back."""
    given = [i for i, index in enumerate(indices) if index is not None]
    front, back = given[0], len(indices) - 1 - given[-1]
    runs: list[tuple[bool, int, int, int]] = []
    for index in indices[front : len(indices) - back]:
        if index is None:
            raise ValueError("a frame of zeros between given ones")
        lead, at, block = x._position(index)
        if runs and (runs[-1][0], runs[-1][2], runs[-1][3]) == (lead, at, block):
            runs[-1] = (lead, runs[-1][1], at + 1, block)
        else:
            runs.append((lead, at, at + 1, block))
    return front, runs, back
