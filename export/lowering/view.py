"""A value of any rank held as a tensor of rank 4 or less: its axes split, moved and joined on paper, and copied once.

The channel shuffle of a ``(1, C, T, H, W)`` value goes through rank 6::

    reshape    (1, g, c, T, H, W)    factors of the memory   g  c  THW
    transpose  (1, c, g, T, H, W)    their order             c  g  THW
    reshape    (1, c * g, T, H, W)   one transposition of rank 3 when it is asked for

"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

RANK = 4


@dataclass(frozen=True, eq=False)
class View:
    """``data``'s elements, in memory row by row, are split into ``factors``; ``order`` permutes these; ``shape`` regroups them.

    Factors of 1 are left out, so an axis of size 1 has none. Every other axis of ``shape`` is a run of ``order``.
    """

    data: Tensor
    factors: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, data: Tensor, shape: Sequence[int] | None = None) -> "View":
        """A tensor, in its own shape or another one of as many elements."""
        factors = tuple(size for size in data.shape if size != 1)
        view = cls(data, factors, tuple(range(len(factors))), tuple(data.shape))
        return view if shape is None else view.reshape(shape)

    def reshape(self, shape: Sequence[int]) -> "View":
        """As ``Tensor.reshape``; ``shape`` may have one -1."""
        shape = complete(shape, math.prod(self.shape))
        factors, order = list(self.factors), list(self.order)
        position = 0
        for size in shape:
            while size > 1:
                factor = factors[order[position]]
                if size % factor and factor % size:
                    return View.of(self.tensor(), shape)
                if factor > size:
                    _split(factors, order, position, size)
                    factor = size
                size //= factor
                position += 1
        return View(self.data, tuple(factors), tuple(order), tuple(shape))

    def permute(self, axes: Sequence[int]) -> "View":
        """As ``Tensor.permute``."""
        runs = self.runs()
        axes = [axis % len(self.shape) for axis in axes]
        return View(self.data, self.factors, tuple(i for axis in axes for i in runs[axis]), tuple(self.shape[axis] for axis in axes))

    def runs(self) -> list[tuple[int, ...]]:
        """For each axis of the shape the factors that make it, in order."""
        every, position = [], 0
        for size in self.shape:
            start, product = position, 1
            while product < size:
                product *= self.factors[self.order[position]]
                position += 1
            every.append(self.order[start:position])
        return every

    @cached_property
    def pieces(self) -> tuple[Tensor, ...]:
        """Those of a value ``(1, C, T, H, W)`` along its third axis, each ``(1, C, H, W)``."""
        _, channels, count, *plane = self.shape
        stacked = self.permute((0, 2, 1, 3, 4)).tensor((count, channels, *plane))
        return (stacked,) if count == 1 else tuple(stacked[t : t + 1] for t in range(count))

    def outermost(self, axis: int) -> bool:
        """Whether an axis varies slowest in memory, so that its pieces lie there one after the other."""
        return self.runs()[axis][:1] == (0,)

    def map(self, data: Tensor) -> "View":
        """The same view of another tensor of the same shape as ``data``."""
        return View(data, self.factors, self.order, self.shape)

    def tensor(self, shape: Sequence[int] | None = None) -> Tensor:
        """The elements in order, as a tensor of rank 4 or less: of ``shape``, flat unless given."""
        shape = (math.prod(self.shape),) if shape is None else tuple(shape)
        data, sizes, order = self.data, list(self.factors), list(self.order)
        if len(sizes) > RANK:
            sizes, order = _joined(sizes, order)
        if order == sorted(order):
            return _reshaped(data, shape)
        if len(sizes) <= RANK:
            return _reshaped(_reshaped(data, sizes).permute(order), shape)
        return _reshaped(_by_swaps(data, sizes, order), shape)


def exchanged(rank: int, first: int, second: int) -> list[int]:
    """The permutation of so many axes that exchanges two of them."""
    axes = list(range(rank))
    axes[first], axes[second] = axes[second], axes[first]
    return axes


def complete(shape: Sequence[int], count: int) -> tuple[int, ...]:
    """The shape of ``count`` elements with its -1 worked out."""
    return tuple(count // -math.prod(shape) if size == -1 else int(size) for size in shape)


def _split(factors: list[int], order: list[int], position: int, first: int) -> None:
    """Splits the factor at a position of the order into ``first`` and the rest."""
    index = order[position]
    factors[index : index + 1] = [first, factors[index] // first]
    order[:] = [i + (i > index) for i in order]
    order.insert(position + 1, index + 1)


def _joined(sizes: list[int], order: list[int]) -> tuple[list[int], list[int]]:
    """Fewer factors: those that stay neighbours become one."""
    runs: list[list[int]] = []
    for index in order:
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    in_memory = sorted(runs)
    return [math.prod(sizes[i] for i in run) for run in in_memory], [in_memory.index(run) for run in runs]


def _by_swaps(data: Tensor, sizes: list[int], order: list[int]) -> Tensor:
    """Any permutation as transpositions of two neighbouring blocks, each of rank 4."""
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
