"""What causal layers remember from step to step, packed into one state."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Past:
    """A packed state ``(N, total)``, read layer by layer in the order of the forward pass; the next one is written likewise.

    A temporal kernel of 3 over steps of two frames, with two frames remembered:

        step 1       0  0  a  b        reads  0 0, keeps  a b
        step 2             a  b  c  d  reads  a b, keeps  c d
    """

    def __init__(self, packed: Tensor) -> None:
        self._packed = packed
        self._read = 0
        self._written: list[Tensor] = []

    @staticmethod
    def initial(shapes: Sequence[Sequence[int]]) -> Tensor:
        """The state before a video's first step, batch 1: zeros, for layers that keep values of these shapes."""
        return torch.zeros(1, sum(math.prod(shape) for shape in shapes))

    def take(self, shape: Sequence[int]) -> Tensor:
        """The next layer's value, ``(N, *shape)``."""
        size = math.prod(shape)
        value = self._packed[:, self._read : self._read + size]
        self._read += size
        return value.reshape(-1, *shape)

    def keep(self, value: Tensor) -> None:
        """Remembers a layer's value for the next step."""
        self._written.append(value.flatten(1))

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """``(N, C, T, H, W)`` with the ``frames`` frames before it; its last ones are remembered, frame after frame."""
        before = self.take((frames, x.shape[1], *x.shape[3:])).transpose(1, 2)
        joined = torch.cat([before, x], dim=2)
        self.keep(joined[:, :, -frames:].transpose(1, 2))
        return joined

    def sum_of_newest(self, value: Tensor, steps: int) -> Tensor:
        """The sum of this step's ``(N, C)`` and those of the ``steps - 1`` steps before, which are remembered one by one.

        It is added up anew, because a sum that is corrected from step to step drifts.
        """
        values = value.unsqueeze(2)
        if steps > 1:
            values = torch.cat([self.take((value.shape[1], steps - 1)), values], dim=2)
            self.keep(values[:, :, 1:])
        return values.unsqueeze(3).mean((2, 3)) * steps

    def next(self) -> Tensor:
        """The state for the next step."""
        return torch.cat(self._written, dim=1) if len(self._written) > 1 else self._written[0]
