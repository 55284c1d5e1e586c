"""Finds the operations of a graph that float16 is too narrow for, by running the graph on real frames in float32.

The numbers of float16 end at 65504, and those below 6e-5 lose digits. An operation stays in float32 if the largest magnitude among the elements
of something that it reads or computes is above half of that end, or below that start: with the frames of another video it may be twice as large. The
sums inside of an operation count too, because engines may add in float16: a product is bounded by the product of its operands' magnitudes.

So does an operation in which a state adds up over the steps, see `clipstep.export.targets.accumulation`.

Engines may also take the numbers below 6e-5 for zero: XNNPACK does on ARM64. An operation then stays in float32 if its result would lose more by that
than by rounding.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.step import StepProgram
from clipstep.export.targets.accumulation import ADDS_UP, accumulating
from clipstep.export.targets.common import run_sample

aten = torch.ops.aten
LARGEST = torch.finfo(torch.float16).max / 2
SMALLEST = torch.finfo(torch.float16).smallest_normal
LOST = 2.0**-18
"""The largest error that numbers taken for zero may make, as a share of the sum of squares: 2 ** -9 of the root mean square."""
TOO_LARGE = "float16 is too narrow for its values"
TOO_SMALL = "its values are too small for float16"
ARITHMETIC = frozenset(
    getattr(getattr(aten, name), overload)
    for name in ("add", "sub", "rsub", "mul", "div", "pow")
    for overload in ("Tensor", "Scalar", "Tensor_Scalar")
    if overload in getattr(aten, name).overloads()
)
"""Operators whose whole numbers are numbers that they compute with; those of other operators are axes and sizes."""
SUMMANDS = frozenset((aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar, aten.cat.default))
"""Operators whose result is as wide as their widest operand, so that of a smaller one only digits are lost that the result does not have."""
PRODUCTS = frozenset(
    (
        *(aten.conv2d.default, aten.conv_transpose2d.input, aten.linear.default),
        *(aten.matmul.default, aten.mm.default, aten.bmm.default),
    )
)
"""Convolutions and products of matrices, whose third argument is a bias if there is one."""


def beyond_float16(graph: fx.GraphModule, program: StepProgram) -> dict[fx.Node, str]:
    """Return the operations that have to be computed in float32, each with the reason, `TOO_LARGE`, `TOO_SMALL` or `ADDS_UP`.

    Args:
        graph: the step, lowered.
        program: its initial states, and the sample frames, of which the first are run.
    """
    return measured_ranges(graph, program, flushes=False).found


def measured_ranges(graph: fx.GraphModule, program: StepProgram, *, flushes: bool) -> "Ranges":
    """Return what `beyond_float16` does, and the largest magnitude that each value of floats had in those steps.

    `flushes` tells whether the engine takes numbers for zero that are smaller than the normal ones of float16.
    """
    ranges = Ranges(graph, flushes)
    ranges.found.update(dict.fromkeys(accumulating(graph, len(program.states)), ADDS_UP))
    run_sample(ranges, program)
    return ranges


class Ranges(fx.Interpreter):
    """Runs a graph and collects in `found` the operations for which float16 is too narrow, and in `largest` the magnitudes of values."""

    def __init__(self, graph: fx.GraphModule, flushes: bool) -> None:
        super().__init__(graph)
        self._flushes = flushes
        self.found: dict[fx.Node, str] = {}
        self.largest: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "output" or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        magnitudes = [_largest(value), *_settings(n)]
        self.largest[n] = max(magnitudes[0], self.largest.get(n, 0.0))
        if n.target in SUMS:
            magnitudes.append(_largest(SUMS[n.target](*self.fetch_args_kwargs_from_env(n))))
        reason = _reason(magnitudes)
        if reason is not None:
            self._keep(n, [user for user in n.users if reason == TOO_LARGE or not _is_added(n, user)], reason)
        elif self._flushes:
            if n.target in PRODUCTS and _is_off(self._of_flushed(n), value):
                self._keep(n, (), TOO_SMALL)
            if _is_off(_flushed(value), value):
                self._keep(n, [user for user in n.users if user.target not in SUMMANDS | PRODUCTS], TOO_SMALL)
        return value

    def _keep(self, node: fx.Node, users: Iterable[fx.Node], reason: str) -> None:
        self.found.update((one, reason) for one in (node, *users) if one.op == "call_function" and one not in self.found)

    def _of_flushed(self, node: fx.Node) -> Tensor:
        """Compute an operation of operands whose small numbers are zero."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        computed: Tensor = self.call_function(node.target, tuple(_flushed(one) if isinstance(one, Tensor) else one for one in args), kwargs)
        return computed


def _is_added(node: fx.Node, user: fx.Node) -> bool:
    """Whether an operation only adds a value to others, such as the bias of a convolution, so that no more than its digits are lost."""
    return user.target in SUMMANDS or (user.target in PRODUCTS and node not in user.args[:2])


def _largest(value: Tensor) -> float:
    """Return the largest magnitude of the finite elements; an infinity stays what it is in float16."""
    return float(torch.where(value.isfinite(), value, torch.zeros_like(value)).abs().max()) if value.numel() else 0.0


def _flushed(value: Tensor) -> Tensor:
    return torch.where(value.abs() < SMALLEST, torch.zeros_like(value), value)


def _is_off(got: Tensor, value: Tensor) -> bool:
    return float((got - value).square().sum()) > LOST * float(value.square().sum())


def _settings(node: fx.Node) -> list[float]:
    """Return the magnitudes of the numbers that are part of an operation, such as the epsilon that is added to a norm."""
    types = (int, float) if node.target in ARITHMETIC else (float,)
    given = (*node.args, *node.kwargs.values())
    return [abs(number) for number in given if isinstance(number, types) and math.isfinite(number)]


def _reason(magnitudes: Iterable[float]) -> str | None:
    if any(magnitude > LARGEST for magnitude in magnitudes):
        return TOO_LARGE
    return TOO_SMALL if any(0 < magnitude < SMALLEST for magnitude in magnitudes) else None


def _of_magnitudes(target: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that computes an operator of the magnitudes of its operands."""

    def computed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return target(*(value.abs() if isinstance(value, Tensor) else value for value in args), **kwargs)

    return computed


def _window_sum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return a bound of the sums of an average pool."""
    kernel = [args[1]] * 2 if isinstance(args[1], int) else args[1]
    return args[0].abs().max() * math.prod(kernel)  # type: ignore[no-any-return]


def _sum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the sums of magnitudes and, because a sum may be computed as a mean times their number, this number."""
    summed = aten.sum.dim_IntList(args[0].abs(), *args[1:], **kwargs)
    return torch.stack([summed.max(), torch.tensor(float(args[0].numel() // summed.numel()))])


def _squared_deviations(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the squares of which a layer norm takes the mean."""
    value, shape = args[:2]
    return (value - value.mean(tuple(range(-len(shape), 0)), keepdim=True)) ** 2  # type: ignore[no-any-return]


SUMS: Mapping[Any, Callable[[tuple[Any, ...], dict[str, Any]], Tensor]] = {
    **{target: _of_magnitudes(target) for target in PRODUCTS},
    aten.avg_pool2d.default: _window_sum,
    aten.sum.dim_IntList: _sum,
    aten.layer_norm.default: _squared_deviations,
}
"""For operators that add up, a function that computes what is added up on the way to their result, or a bound of it."""
