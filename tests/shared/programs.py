"""Random networks: a few operations of every kind in a row, on values of any rank, and perhaps a state."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES, SIZE, CLASSES = 4, 8, 3
LARGEST = 6000
"""The most elements that a value may have, so that a program runs quickly."""


class Choices:
    """Numbers that hypothesis has drawn, as choices of axes and sizes."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers: Iterator[int] = (numbers[i % len(numbers)] // (i // len(numbers) + 1) for i in count())

    def below(self, bound: int) -> int:
        return next(self._numbers) % max(bound, 1)

    def of(self, *values: Any) -> Any:
        return values[self.below(len(values))]

    def axis(self, x: Tensor) -> int:
        axis = self.below(x.ndim)
        return axis - x.ndim if self.below(2) else axis

    def axes(self, x: Tensor) -> list[int]:
        return [axis for axis in range(x.ndim) if self.below(2)] or [self.below(x.ndim)]


def _fixed(*shape: int) -> Tensor:
    """Return a constant; random numbers in a network would be refused."""
    return torch.arange(float(math.prod(shape))).mul(1.7).add(sum(shape)).sin().reshape(shape) / 2


def _permuted(x: Tensor, c: Choices) -> Tensor:
    axes = list(range(x.ndim))
    return x.permute([axes.pop(c.below(len(axes))) for _ in range(x.ndim)])


def _split(x: Tensor, c: Choices) -> Tensor:
    axis = c.below(x.ndim)
    factor = next((f for f in (2, 3, 5) if x.shape[axis] % f == 0), 1)
    return x.unflatten(axis, (factor, x.shape[axis] // factor)) if x.ndim < 7 else x


def _joined(x: Tensor, c: Choices) -> Tensor:
    first = c.below(x.ndim - 1)
    return x.flatten(first, first + 1) if x.ndim > 1 else x


def _sliced(x: Tensor, c: Choices) -> Tensor:
    axis = c.axis(x)
    length = x.shape[axis]
    start = c.below(length)
    where = [slice(None)] * x.ndim
    where[axis] = slice(start, start + 1 + c.below(length - start), c.of(1, 1, 2))
    return x[tuple(where)]


def _assigned(x: Tensor, c: Choices) -> Tensor:
    axis, changed = c.axis(x), x.clone()
    where: list[Any] = [slice(None)] * x.ndim
    where[axis] = c.of(slice(0, 1), slice(None, None, 2), [x.shape[axis] - 1], -1)
    changed[tuple(where)] = c.of(0.5, x.mean())
    return changed


def _padded(x: Tensor, c: Choices) -> Tensor:
    amounts = [c.below(2) for _ in range(2 * min(x.ndim, 3))]
    if 3 <= x.ndim <= 5 and min(x.shape[-min(x.ndim - 2, 3) :]) > 1 and c.below(2):
        return F.pad(x, amounts[: 2 * (x.ndim - 2)], mode=c.of("reflect", "replicate", "circular"))
    return F.pad(x, amounts, value=c.of(0.0, 0.5))


def _convolved(x: Tensor, c: Choices) -> Tensor:
    rank = max(3, min(x.ndim, 5))
    x = x.reshape(1, *[1] * (rank - 1 - x.ndim), *x.shape) if x.ndim < rank else x.flatten(0, x.ndim - rank)
    if x.ndim == 5:
        x = x[:1]
    kernel = [1 + c.below(min(size, 3)) for size in x.shape[2:]]
    channels = x.shape[1]
    convolution = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[rank]
    transposed = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[rank]
    if c.below(4) == 0:
        return torch.tanh(transposed(x, _fixed(channels, 2, *kernel), stride=c.of(1, 2)))
    groups, outputs = c.of((1, 4), (1, 4), (channels, channels))
    weight = _fixed(outputs, channels // groups, *kernel)
    return torch.tanh(convolution(x, weight, _fixed(outputs), stride=c.of(1, 2), groups=groups))


def _pooled(x: Tensor, c: Choices) -> Tensor:
    rank = max(4, min(x.ndim, 5))
    x = x.reshape(*[1] * (rank - x.ndim), *x.shape) if x.ndim < rank else x.flatten(0, x.ndim - rank)
    if x.ndim == 5:
        x = x[:1]
    kernel = [1 + c.below(min(size, 3)) for size in x.shape[2:]]
    if rank == 4:
        pool = c.of(F.max_pool2d, F.avg_pool2d)
        return pool(x, kernel, c.of(1, 2), ceil_mode=bool(c.below(2)))  # type: ignore[no-any-return]
    pool = c.of(F.max_pool3d, F.avg_pool3d)
    return pool(x, kernel, c.of(1, 2), ceil_mode=bool(c.below(2)))  # type: ignore[no-any-return]


def _resized(x: Tensor, c: Choices) -> Tensor:
    x = x.reshape(*[1] * (4 - x.ndim), *x.shape) if x.ndim < 4 else x.flatten(0, x.ndim - 4)
    return F.interpolate(x, size=(1 + c.below(9), 1 + c.below(9)), mode=c.of("nearest", "bilinear", "bicubic", "nearest-exact"))


def _normalised(x: Tensor, c: Choices) -> Tensor:
    kind = c.below(3)
    if kind == 0 or x.ndim < 2:
        return F.layer_norm(x, x.shape[-1:], _fixed(x.shape[-1]), None, 0.1)
    if kind == 1:
        return F.group_norm(x, 1, None, None, 0.1)
    return F.normalize(x + 1.5, dim=c.axis(x))


def _multiplied(x: Tensor, c: Choices) -> Tensor:
    if x.ndim < 2 or c.below(2):
        return torch.tanh(F.linear(x, _fixed(1 + c.below(6), x.shape[-1])))
    return torch.tanh(x @ x.transpose(-1, -2))


def _attended(x: Tensor, c: Choices) -> Tensor:
    x = x if x.ndim > 2 else x.reshape(*[1] * (3 - x.ndim), *x.shape)
    return F.scaled_dot_product_attention(x, x + 0.1, x, is_causal=bool(c.below(2)))


def _gathered(x: Tensor, c: Choices) -> Tensor:
    axis = c.axis(x)
    places = torch.tensor([c.below(x.shape[axis]) for _ in range(1 + c.below(4))])
    return c.of(x.index_select(axis, places), x.movedim(axis, 0)[places])  # type: ignore[no-any-return]


def _recurrent(x: Tensor, c: Choices) -> Tensor:
    if x.ndim < 2:
        return x
    rows = x.flatten(0, -2)
    return torch.gru_cell(rows, torch.zeros(len(rows), 3), _fixed(9, rows.shape[1]), _fixed(9, 3))


def _mixed(x: Tensor, c: Choices) -> Tensor:
    other = c.of(x.mean(c.axis(x), keepdim=True), x.amax(), x.flip(c.axis(x)), 0.25, _fixed(x.shape[-1]))
    function = c.of(torch.add, torch.sub, torch.mul, torch.maximum, torch.atan2, torch.lerp)
    if not isinstance(other, Tensor):
        return x * other + 1
    if function is torch.lerp:
        return torch.lerp(x, other.expand_as(x), 0.3)
    return function(x, other)  # type: ignore[no-any-return]


OPERATIONS: dict[str, Callable[[Tensor, Choices], Tensor]] = {
    "smooth": lambda x, c: c.of(torch.sin, torch.cos, torch.tanh, torch.sigmoid, torch.erf, F.gelu, F.silu, F.elu, F.mish, F.softplus, torch.abs)(x),
    "piecewise": lambda x, c: c.of(F.relu, F.relu6, F.hardswish, F.leaky_relu, F.hardsigmoid, F.softsign)(x),
    "bounded": lambda x, c: c.of(torch.exp, torch.expm1, torch.square, torch.sinh, torch.log1p)(x.clamp(-0.8, 2.0)),
    "mixed": _mixed,
    "chosen": lambda x, c: torch.where(x > 0.013, x, x * c.of(0.1, -1.0)),
    "masked": lambda x, c: x.masked_fill(_fixed(x.shape[-1]) > 0, c.of(0.5, -2.0)),
    "compared": lambda x, c: (x > x.mean() + 0.0137).float() + x,
    "reduced": lambda x, c: c.of(torch.sum, torch.mean, torch.amax, torch.amin, torch.var, torch.logsumexp)(x, c.axes(x), keepdim=True) + 0.1 * x,
    "collapsed": lambda x, c: c.of(torch.mean, torch.amax, torch.sum)(x, c.axis(x)) if x.ndim > 1 else x,
    "softmax": lambda x, c: c.of(torch.softmax, torch.log_softmax)(x, c.axis(x)),
    "cumulated": lambda x, c: torch.tanh(c.of(torch.cumsum, lambda y, axis: y.cummax(axis)[0])(x, c.axis(x))),
    "sorted": lambda x, c: x.sort(c.axis(x), descending=bool(c.below(2)))[0],
    "the largest": lambda x, c: x.topk(1, c.axis(x))[0],
    "flipped": lambda x, c: x.flip(c.axes(x)),
    "rolled": lambda x, c: x.roll(1 + c.below(3), c.axis(x)),
    "permuted": _permuted,
    "split": _split,
    "joined": _joined,
    "unsqueezed": lambda x, c: x.unsqueeze(c.below(x.ndim + 1)) if x.ndim < 7 else x,
    "squeezed": lambda x, c: x.squeeze() if x.numel() > 1 else x,
    "sliced": _sliced,
    "selected": lambda x, c: x.select(axis := c.below(x.ndim), c.below(x.shape[axis])) if x.ndim > 1 else x,
    "assigned": _assigned,
    "gathered": _gathered,
    "padded": _padded,
    "repeated": lambda x, c: c.of(x.repeat_interleave(2, c.axis(x)), torch.cat([x, x * 0.5], c.axis(x)), torch.stack([x, -x], c.below(x.ndim + 1))),
    "chunked": lambda x, c: torch.cat(x.chunk(2, axis := c.axis(x))[::-1], axis),
    "convolved": _convolved,
    "pooled": _pooled,
    "resized": _resized,
    "normalised": _normalised,
    "multiplied": _multiplied,
    "attended": _attended,
    "recurrent": _recurrent,
    "integers": lambda x, c: (x * 7.31).long().clamp(-20, 20).float() * 0.1 + x,
    "converted": lambda x, c: x.double().cos().float(),
}


@dataclass(frozen=True)
class Call:
    """One operation of a program, with the numbers that its choices are made from."""

    operation: str
    numbers: tuple[int, ...]


def _counted(row: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Change every third step, by a comparison and a remainder of whole numbers."""
    return torch.where(count.long() % 3 == 2, row.flip(1), row), count + 1


def _averaged(row: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    mean = mean * 0.5 + row
    return row - 0.3 * mean, mean


def _remembered(row: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the last rows, of which the oldest is left out."""
    past = torch.cat([past[:, 1:], row[:, None]], 1)
    return past.softmax(1).sum(1) * row, past


def _drawn(row: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    picture = torch.tanh(F.conv2d(picture, _fixed(2, 2, 3, 3), padding=1) + row.view(1, 2, 2, -1))
    return row + picture.amax((1, 2)).repeat(1, 2) * 0.3, picture


STATES: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]] = {
    "count": ((1,), _counted),
    "mean": ((1, SIZE), _averaged),
    "past": ((1, 3, SIZE), _remembered),
    "picture": ((1, 2, 2, SIZE // 4), _drawn),
}
"""The shape of each state, and what changes a row `(1, SIZE)` and the state at every step."""
CALLS = st.builds(Call, st.sampled_from(list(OPERATIONS)), st.lists(st.integers(0, 999), min_size=4, max_size=4).map(tuple))
PROGRAMS = st.tuples(st.lists(CALLS, min_size=2, max_size=8), st.lists(st.sampled_from(list(STATES)), max_size=3, unique=True))
"""A program: its calls, and its states, in the order in which they change the result."""


class Program(nn.Module):
    """A network that makes the calls of a program one after the other."""

    def __init__(self, calls: list[Call], states: list[str]) -> None:
        super().__init__()
        self.calls, self.states = calls, states

    def initial_states(self) -> dict[str, Tensor]:
        return {name: torch.zeros(STATES[name][0]) for name in self.states}

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        for call in self.calls:
            y = OPERATIONS[call.operation](x, Choices(call.numbers))
            x = y if 0 < y.numel() <= LARGEST and y.ndim else x
        row = x.reshape(1, -1)
        row = torch.cat([row] * -(-SIZE // row.shape[1]), 1)[:, :SIZE].tanh()
        following = []
        for name, state in zip(self.states, states, strict=True):
            row, state = STATES[name][1](row, state)
            following.append(state)
        return (row[:, -CLASSES:], *following)
