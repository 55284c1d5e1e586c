"""A lazy permutation moves axes as torch does, at any rank, through tensors of rank 4 at most."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clipstep.export.lowering.lazy import LazyPermutation


class Ranks(TorchDispatchMode):
    """Records the largest rank of any operation's result."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.ndim)
        return result


@st.composite
def moves(draw: st.DrawFn) -> tuple[list[int], list[tuple[str, list[int]]]]:
    """A shape, and a sequence of reshapes and permutations that torch allows."""
    primes = draw(st.lists(st.sampled_from([1, 2, 2, 3, 4, 5]), min_size=1, max_size=7))
    shape = draw(st.permutations(primes))[:4]
    rest = math.prod(primes) // math.prod(shape)
    shape[-1] *= rest
    steps: list[tuple[str, list[int]]] = []
    now = list(shape)
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            axes = draw(st.permutations(range(len(now))))
            now = [now[axis] for axis in axes]
            steps.append(("permute", axes))
        else:
            parts = draw(st.lists(st.sampled_from(_divisors(math.prod(now))), max_size=6))
            new: list[int] = []
            left = math.prod(now)
            for part in parts:
                if left % part == 0:
                    new.append(part)
                    left //= part
            now = [*new, left]
            steps.append(("reshape", now))
    return shape, steps


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


@settings(max_examples=300, deadline=None)
@given(moves())
def test_reshapes_and_permutations_equal_torch(case: tuple[list[int], list[tuple[str, list[int]]]]) -> None:
    shape, steps = case
    expected = torch.arange(math.prod(shape)).reshape(shape)
    with Ranks() as ranks:
        lazy = LazyPermutation.of(torch.arange(math.prod(shape)).reshape(shape))
        for name, argument in steps:
            lazy = getattr(lazy, name)(argument)
        got = lazy.tensor()
    for name, argument in steps:
        expected = getattr(expected, name)(argument)
    assert lazy.shape == tuple(expected.shape)
    assert torch.equal(got, expected.flatten())
    assert ranks.largest <= 4


@pytest.mark.parametrize("order", list(permutations(range(5))), ids=str)
def test_any_order_of_five_axes(order: tuple[int, ...]) -> None:
    """If no two axes stay neighbours, several transpositions are needed."""
    sizes = (2, 3, 5, 4, 3)
    x = torch.randn(6, 5, 12)
    with Ranks() as ranks:
        got = LazyPermutation.of(x).reshape(sizes).permute(order).tensor()
    assert torch.equal(got, x.reshape(sizes).permute(order).flatten()) and ranks.largest <= 4


def test_a_channel_shuffle_is_one_transposition() -> None:
    x = torch.randn(1, 12, 4, 5, 6)
    lazy = LazyPermutation.of(x[0]).reshape((1, 12, 4, 5, 6)).reshape((1, 3, 4, 4, 5, 6)).permute((0, 2, 1, 3, 4, 5)).reshape((1, 12, 4, 5, 6))
    with Ranks() as ranks:
        got = lazy.tensor((12, 4, 5, 6))
    assert torch.equal(got[None], x.reshape(1, 3, 4, 4, 5, 6).transpose(1, 2).reshape(x.shape)) and ranks.largest == 4
