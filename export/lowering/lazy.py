"""A value of any rank, held as a tensor of rank 4 or less whose axes are split, permuted and joined lazily.

Reshapes and permutations change the description only. Elements are moved once, when a tensor is needed. The channel shuffle of a value
`(1, C, T, H, W)` goes through rank 6:

    x.reshape(1, g, c, T, H, W)    factors of the memory: g, c, THW
    x.transpose(1, 2)              their order:           c, g, THW
    x.reshape(1, c * g, T, H, W)   one transposition of a rank-3 tensor, when the tensor is needed

"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

RANK = 4
"""The highest rank of a tensor in a lowered graph."""


@dataclass(frozen=True, eq=False)
class LazyPermutation:
    """A value of shape `shape`: the row-major elements of `data` reshaped to `factors`, permuted by `order`, reshaped to `shape`.

    `factors` leaves out axes of size 1. Each axis of `shape` that is larger than 1 is made of consecutive entries of `order`.
    """

    data: Tensor
    factors: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, data: Tensor, shape: Sequence[int] | None = None) -> "LazyPermutation":
        """Return a value that is the tensor itself, or the tensor reshaped to `shape`."""
        factors = tuple(size for size in data.shape if size != 1)
        low = data if data.ndim <= RANK else data.flatten()  # A constant of the network.
        whole = cls(low, factors, tuple(range(len(factors))), tuple(data.shape))
        return whole if shape is None else whole.reshape(shape)

    def reshape(self, shape: Sequence[int]) -> "LazyPermutation":
        """Reshape the value, as `Tensor.reshape` does; one entry of `shape` may be -1."""
        shape = resolved_shape(shape, math.prod(self.shape))
        factors, order = list(self.factors), list(self.order)
        position = 0
        for size in shape:
            while size > 1:
                factor = factors[order[position]]
                if size % factor and factor % size:
                    return LazyPermutation.of(self.tensor(), shape)
                if factor > size:
                    _split(factors, order, position, size)
                    factor = size
                size //= factor
                position += 1
        return LazyPermutation(self.data, tuple(factors), tuple(order), tuple(shape))

    def permute(self, axes: Sequence[int]) -> "LazyPermutation":
        """Permute the axes, as `Tensor.permute` does."""
        runs = self.runs()
        axes = [axis % len(self.shape) for axis in axes]
        return LazyPermutation(self.data, self.factors, tuple(i for axis in axes for i in runs[axis]), tuple(self.shape[axis] for axis in axes))

    def runs(self) -> list[tuple[int, ...]]:
        """Return for each axis of `shape` the indices of the factors that it is made of, in order."""
        axes, position = [], 0
        for size in self.shape:
            start, product = position, 1
            while product < size:
                product *= self.factors[self.order[position]]
                position += 1
            axes.append(self.order[start:position])
        return axes

    @cached_property
    def frames(self) -> tuple[Tensor, ...]:
        """The frames `(1, C, H, W)` of a value `(1, C, T, H, W)`."""
        _, channels, count, *plane = self.shape
        stacked = self.permute((0, 2, 1, 3, 4)).tensor((count, channels, *plane))
        return (stacked,) if count == 1 else tuple(stacked[t : t + 1] for t in range(count))

    def outermost(self, axis: int) -> bool:
        """Whether an axis is the outermost one in memory, so that each of its entries is contiguous."""
        return self.runs()[axis][:1] == (0,)

    def with_data(self, data: Tensor) -> "LazyPermutation":
        """Return the same permutation of another tensor, which has the shape of `self.data`."""
        return LazyPermutation(data, self.factors, self.order, self.shape)

    def tensor(self, shape: Sequence[int] | None = None) -> Tensor:
        """Return the value as a row-major tensor of rank 4 or less, reshaped to `shape` (by default flat). This is where elements move."""
        shape = (math.prod(self.shape),) if shape is None else tuple(shape)
        data, sizes, order = self.data, list(self.factors), list(self.order)
        if len(sizes) > RANK:
            sizes, order = _joined(sizes, order)
        if order == sorted(order):
            return _reshaped(data, shape)
        if len(sizes) <= RANK:
            return _reshaped(_reshaped(data, sizes).permute(order), shape)
        return _reshaped(_by_swaps(data, sizes, order), shape)


def swapped_axes(rank: int, first: int, second: int) -> list[int]:
    """Return the permutation of `rank` axes that swaps two of them."""
    axes = list(range(rank))
    axes[first], axes[second] = axes[second], axes[first]
    return axes


def resolved_shape(shape: Sequence[int], count: int) -> tuple[int, ...]:
    """Return `shape` with its -1, if it has one, replaced by the size with which it has `count` elements."""
    return tuple(count // -math.prod(shape) if size == -1 else int(size) for size in shape)


def _split(factors: list[int], order: list[int], position: int, first: int) -> None:
    """Split, in place, the factor at `order[position]` into one of size `first` and the rest."""
    index = order[position]
    factors[index : index + 1] = [first, factors[index] // first]
    order[:] = [i + (i > index) for i in order]
    order.insert(position + 1, index + 1)


def _joined(sizes: list[int], order: list[int]) -> tuple[list[int], list[int]]:
    """Return the same permutation of fewer axes: axes that stay next to each other are joined."""
    runs: list[list[int]] = []
    for index in order:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    in_memory = sorted(runs)
    return [math.prod(sizes[i] for i in run) for run in in_memory], [in_memory.index(run) for run in runs]


def _by_swaps(data: Tensor, sizes: list[int], order: list[int]) -> Tensor:
    """Permute any number of axes by swapping two adjacent blocks of axes at a time, each a permutation of rank 4."""
    memory = list(range(len(sizes)))
    for position in range(len(order)):
        start = memory.index(order[position])
        if start == position:
            continue
        end = start + 1
        while end < len(memory) and order[position : position + end - start + 1] == memory[start : end + 1]:
            end += 1
        blocks = memory[:position], memory[position:start], memory[start:end], memory[end:]
        data = _reshaped(data, [math.prod(sizes[i] for i in block) for block in blocks]).permute(0, 2, 1, 3)
        memory = [*blocks[0], *blocks[2], *blocks[1], *blocks[3]]
    return data


def _reshaped(data: Tensor, shape: Sequence[int]) -> Tensor:
    return data if tuple(data.shape) == tuple(shape) else data.reshape(tuple(shape))
