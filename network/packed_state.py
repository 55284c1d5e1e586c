"""Packs the memories of all causal layers of a network into one state, so that a bundle has few states however many layers look back in time."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class PackedState:
    """The packed state during one step: each layer reads its value, in the order of the forward pass, and writes its next one.

    ``packed`` is ``(N, total)``, the values of all layers flattened and concatenated. For example, a layer with a temporal kernel
    of 3 remembers the last two frames; in steps of two frames it reads and writes:

        step 1       0  0  a  b        reads  0 0, writes  a b
        step 2             a  b  c  d  reads  a b, writes  c d
    """

    def __init__(self, packed: Tensor) -> None:
        self.packed = packed
        self._read = 0
        self._written: list[Tensor] = []

    @staticmethod
    def initial(shapes: Sequence[Sequence[int]]) -> Tensor:
        """Return the packed state before a video's first step, batch 1: zeros, for layers that remember values of these ``shapes``."""
        return torch.zeros(1, sum(math.prod(shape) for shape in shapes))

    def read(self, shape: Sequence[int]) -> Tensor:
        """Return the value ``(N, *shape)`` that the layer now being run wrote in the previous step."""
        size = math.prod(shape)
        value = self.packed[:, self._read : self._read + size]
        self._read += size
        return value.reshape(-1, *shape)

    def write(self, value: Tensor) -> None:
        """Remember a layer's ``value`` for the next step."""
        self._written.append(value.flatten(1))

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """Return ``x`` ``(N, C, T, H, W)`` with the ``frames`` frames before it, ``(N, C, frames + T, H, W)``, and remember its last ``frames``."""
        before = self.read((frames, x.shape[1], *x.shape[3:])).transpose(1, 2)
        joined = torch.cat([before, x], dim=2)
        self.write(joined[:, :, -frames:].transpose(1, 2))
        return joined

    def sum_of_newest(self, value: Tensor, steps: int) -> Tensor:
        """Return the sum of this step's ``value`` ``(N, C)`` and those of the ``steps - 1`` steps before.

        Each of them is remembered, and the sum is computed anew at each step, because a running sum would accumulate rounding errors.
        """
        values = value.unsqueeze(2)
        if steps > 1:
            values = torch.cat([self.read((value.shape[1], steps - 1)), values], dim=2)
            self.write(values[:, :, 1:])
        return values.unsqueeze(3).mean((2, 3)) * steps

    def next(self) -> Tensor:
        """Return the packed state for the next step, ``(N, total)``."""
        return torch.cat(self._written, dim=1) if len(self._written) > 1 else self._written[0]
