"""A rank-5 value of the original graph with N = 1, as a list of frames."""

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clipstep.export.lowering.view import View

TIME = 2
Triple = Sequence[int]
"""A setting of a 3D operation: of time, rows and columns."""


@dataclass(frozen=True)
class Style:
    """What is cheap in the engine that will run the graph."""

    stack_limit: float
    """Values of at most so many elements are computed on whole: they fit in a processor's cache, and few large operations cost
    less than many small ones."""
    products: bool
    """Kernels are slow on few channels, or on a number of them that is no multiple of 8: such a convolution is a product of
    matrices, whose kernels compute several pixels at a time."""
    free_axes: bool
    """Permutations and reshapes cost nothing, so that time may be an axis of a 2D convolution."""
    planes: bool
    """Values that are computed on whole stay in their own order, channel by channel: products of matrices are fast, convolutions and
    pools of short rows slow."""
    padded_pools: bool
    """There are average pools that pad; elsewhere they are depthwise convolutions with equal weights."""
    summed_taps: bool
    """Products of each temporal tap are added; elsewhere what is under all of them is gathered for one product."""
    fast_time: bool
    """Where it pays, convolutions with three temporal taps take a third fewer multiplications, and additions in their place."""
    parts_first: bool
    """Values are cut into frames as early as can be, so that less is held at a time; elsewhere fewer operations cost less."""


ONNXRUNTIME = Style(
    stack_limit=2**19, products=True, free_axes=False, planes=True, padded_pools=True, summed_taps=False, fast_time=True, parts_first=True
)
XNNPACK = Style(
    stack_limit=math.inf, products=True, free_axes=True, planes=False, padded_pools=False, summed_taps=False, fast_time=True, parts_first=True
)
COREML = Style(
    stack_limit=math.inf, products=False, free_axes=False, planes=False, padded_pools=True, summed_taps=False, fast_time=False, parts_first=False
)
STYLE: ContextVar[Style] = ContextVar("STYLE", default=ONNXRUNTIME)
"""That of the graph which is being lowered."""


class NoRule(Exception):
    """An operation, or a setting of one, that no rule covers."""


@dataclass(frozen=True)
class Frames:
    """Frames ``(1, C, H, W)`` of a value ``(1, C, T, H, W)``, all of one shape: what convolutions and pools compute on.

    A step then goes depth first, with a frame in the processor's cache. None is a frame of zeros.
    """

    items: tuple[Tensor | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the original value, rank 5."""
        _, channels, height, width = next(frame.shape for frame in self.items if frame is not None)
        return (1, channels, len(self.items), height, width)

    @cached_property
    def exact(self) -> tuple[Tensor, ...]:
        """The frames, those of zeros written out."""
        _, channels, _, height, width = self.shape
        zeros = torch.zeros(1, channels, height, width)
        return tuple(zeros if frame is None else frame for frame in self.items)

    @cached_property
    def view(self) -> View:
        """The frames stacked on the batch axis, in the original's shape."""
        stacked = concatenate(self.exact, 0)
        return View.of(stacked, (1, *stacked.shape)).permute((0, 2, 1, 3, 4))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Frames":
        """The value with an operation done on each frame that keeps zeros."""
        return Frames(tuple(None if frame is None else function(frame) for frame in self.items))

    def each(self, function: Callable[[Tensor], Tensor]) -> "Frames":
        """The value with any operation done on each frame."""
        return Frames(tuple(function(frame) for frame in self.exact))


Value = Frames | View


def frames_of(value: Value | Tensor | Sequence[Tensor]) -> Frames:
    """A value of shape ``(1, C, T, H, W)``, or a list of its frames, as frames.

    Raises:
        NoRule: it has another rank, or more than one in its batch.
    """
    if isinstance(value, Frames):
        return value
    if isinstance(value, Sequence):
        return Frames(tuple(value))
    view = view_of(value)
    if len(view.shape) != 5 or view.shape[0] != 1:
        raise NoRule("a value that is not one batch of frames")
    return Frames(view.pieces)


def is_stack(value: object) -> bool:
    """Whether a value is a view of frames ``(1, C, T, H, W)`` that lie one after the other in memory."""
    return isinstance(value, View) and len(value.shape) == 5 and value.shape[0] == 1 and (value.shape[TIME] == 1 or value.outermost(TIME))


def small(value: Value | Tensor) -> bool:
    """Whether all the frames of a value ``(1, C, T, H, W)`` are better computed on at once."""
    return len(value.shape) == 5 and value.shape[0] == 1 and math.prod(value.shape) <= STYLE.get().stack_limit


def stack_of(value: Value | Tensor) -> Tensor:
    """The frames of a value ``(1, C, T, H, W)`` on the batch axis, ``(T, C, H, W)``."""
    view = view_of(value)
    _, channels, count, height, width = view.shape
    return view.permute((0, 2, 1, 3, 4)).tensor((count, channels, height, width))


def stacked(frames: Tensor) -> View:
    """Frames ``(T, C, H, W)`` as the value ``(1, C, T, H, W)`` that they make."""
    return View.of(frames, (1, *frames.shape)).permute((0, 2, 1, 3, 4))


def in_planes(value: Value | Tensor) -> bool:
    """Whether a value ``(1, C, T, H, W)`` is computed on whole and in its own order; stacks stay stacks."""
    return STYLE.get().planes and small(value) and (value.shape[TIME] == 1 or not is_stack(value))


def planes_of(value: Value | Tensor) -> Tensor:
    """A value ``(1, C, T, H, W)`` in its own order, ``(1, C, T, H * W)``."""
    _, channels, count, height, width = value.shape
    if isinstance(value, Frames):
        return concatenate([frame.reshape(1, channels, 1, height * width) for frame in value.exact], TIME)
    return view_of(value).tensor((1, channels, count, height * width))


def planes(data: Tensor, height: int, width: int) -> View:
    """The value ``(1, C, T, H, W)`` that lies in its own order in ``data``, whose first axes are ``(1, C, T)``."""
    return View.of(data, (*data.shape[:3], height, width))


def rows(stack: Tensor, indices: Sequence[int], dim: int = 0) -> Tensor:
    """Frames ``(T, C, H, W)`` picked by their indices, those that follow one another in one copy; none for all of them."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1][1] += 1
        else:
            runs.append([index, index + 1])
    if runs == [[0, stack.shape[dim]]]:
        return stack
    return concatenate([torch.ops.aten.slice.Tensor(stack, dim, start, stop) for start, stop in runs], dim)


def view_of(value: Value | Tensor) -> View:
    """Any value as a view."""
    if isinstance(value, Frames):
        return value.view
    return value if isinstance(value, View) else View.of(value)


def result(view: View) -> View | Tensor:
    """What an operation gives: a tensor as soon as the rank allows it."""
    return view if len(view.shape) > 4 else view.tensor(view.shape)


def concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """``torch.cat``, but nothing for a single value: XNNPACK does not take that."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)
