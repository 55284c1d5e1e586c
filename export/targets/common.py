"""What the writers of graphs share: how the function that writes an operator is called, and settings of ATen operators."""

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import fx

from clipstep.export.source_lines import UNKNOWN, line_of_node
from clipstep.export.step import StepProgram
from clipstep.export.unsupported import NotLowered, Unsupported
from clipstep.runtime.bundle.manifest import NotDelegated, SensitiveLayer
from clipstep.runtime.errors import ClipstepError, error_summary

aten = torch.ops.aten
Pair = int | Sequence[int]
"""A setting of a 2D operator: one number for rows and columns, or one each."""
IDENTITY = (aten.clone.default, aten.detach.default, aten.alias.default)
"""Operators that return their input, in a graph for inference."""
SAMPLE_STEPS = 4
"""The most subclips of the sample frames that are run to see what values a graph has."""
LISTED_LAYERS = 10
"""The most layers that are named as sensitive."""
signature = cache(inspect.signature)


def write_operator(
    operators: Mapping[Any, Callable[..., Any]], node: fx.Node, leading: Sequence[Any], found: Mapping[fx.Node, Any], **more: Any
) -> Any:
    """Call the function that writes the operator of a node, and return what it returns.

    The function gets `leading`, then the node's arguments with `found` in place of other nodes. If it has keyword parameters
    `before`, `after`, `kind` or one of `more`, it gets them too: the shapes of the node's first argument and of its result, as tuples, and the type
    of the first argument that is a tensor.

    Raises:
        Unsupported: there is no such function, it has no parameter for an argument of the node, or it refuses a setting.
    """
    if node.target not in operators:
        raise Unsupported(described(node))
    function = operators[node.target]
    known = {"before": _shape(node.args[0] if node.args else None), "after": _shape(node), "kind": _type(node), **more}
    given = {name: known[name] for name in signature(function).parameters if name in known}
    args, kwargs = fx.map_arg((node.args, node.kwargs), found.__getitem__)
    try:
        bound = signature(function).bind(*leading, *args, **kwargs, **given)
    except TypeError as error:
        raise Unsupported(f"{described(node)}: {error}") from error
    try:
        return function(*bound.args, **bound.kwargs)
    except Unsupported as reason:
        raise Unsupported(f"{described(node)}, {reason}") from None


def described(node: fx.Node) -> str:
    """Return the operator of a node with the shapes of its operands and its line in the network, if that is known."""
    shapes = [_shape(value) for value in node.all_input_nodes]
    line = line_of_node(node)
    return f"{node.target} on shapes {shapes}{'' if line == UNKNOWN else f' from {line}'}"


def run_sample(interpreter: fx.Interpreter, program: StepProgram) -> None:
    """Run a step's graph on the first sample frames, as consecutive steps."""
    _run_steps(interpreter, program, program.subclips(program.sample)[:SAMPLE_STEPS])


def _run_steps(interpreter: fx.Interpreter, program: StepProgram, subclips: Iterable[torch.Tensor]) -> None:
    """Run a step's graph on subclips as consecutive steps, from its initial states."""
    states = list(program.states.values())
    with torch.no_grad():
        for subclip in subclips:
            _, *others = interpreter.run(subclip.to(program.frames.dtype), *states)
            states = others[: len(states)]


def run_calibration(interpreter: fx.Interpreter, program: StepProgram) -> None:
    """Run a step's graph on the sample frames and on each calibration video, as streams of their own."""
    for subclips in (program.subclips(program.sample), *program.calibration):
        _run_steps(interpreter, program, subclips)


def counted_reasons(reasons: Mapping[fx.Node, str]) -> tuple[NotDelegated, ...]:
    """Return operators, each with its reason and how often it is there."""
    counts = Counter((str(node.target).removesuffix(".default"), reason) for node, reason in reasons.items())
    return tuple(NotDelegated(operator=name, count=count, reason=reason) for (name, reason), count in counts.items())


def most_sensitive(shares: Mapping[str, float]) -> tuple[SensitiveLayer, ...]:
    """Return the layers that the manifest names, of all by their share of the change, the most sensitive ones first."""
    return tuple(SensitiveLayer(layer=layer, share=round(share, 4)) for layer, share in list(shares.items())[:LISTED_LAYERS])


def names_of_values(given: Mapping[str, str]) -> dict[str, str]:
    """Return new names of a converted file's values: those given for its inputs and outputs, and others for values inside that have one of these."""
    return {name: f"inner_{name}" for name in given.values() if name not in given} | dict(given)


@contextlib.contextmanager
def converting(tool: str, reason: Unsupported) -> Iterator[None]:
    """Return a context in which `tool` converts the network, after the target's own writer refused it for `reason`.

    Raises:
        ClipstepError: whatever the tool raises.
    """
    try:
        yield
    except ClipstepError:
        raise
    except Exception as error:  # Each tool raises many types.
        raise ClipstepError(
            f"{tool} cannot convert the network, which our own writer does not take ({reason})",
            got=f"{type(error).__name__}: {error_summary(error)}",
            fix="export other targets, or avoid the operator in the network (docs/operators.md)",
        ) from error


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.meta["val"].shape) if isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor) else None


def _type(node: fx.Node) -> torch.dtype | None:
    kinds = (source.meta["val"].dtype for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor))
    return next(kinds, None)


def check_result(dtype: torch.dtype | None) -> None:
    """Check the `dtype` of an operator's result, None for that of its input.

    Raises:
        Unsupported: it is not float32.
    """
    if dtype not in (None, torch.float32):
        raise Unsupported("a result other than float32")


def check_sizes(scales: Sequence[float] | None) -> None:
    """Check that a resize is to sizes: engines compute with the ratios of sizes, and PyTorch with the factors.

    Raises:
        NotLowered: it is by factors.
    """
    if scales is not None:
        raise NotLowered("`scale_factors`")


def check_padding(mode: str) -> None:
    """Check that a padding is with a constant.

    Raises:
        NotLowered: it is another one.
    """
    if mode != "constant":
        raise NotLowered("a `mode` other than `constant`")


def check_average(ceil_mode: bool, divisor: int | None) -> None:
    """Check that the size of an average pool is rounded down, and that it divides by the number of elements.

    Raises:
        NotLowered: it does not.
    """
    if ceil_mode or divisor:
        raise NotLowered("`ceil_mode` and `divisor_override`")


def pair(values: Pair) -> tuple[int, int]:
    """Return the setting for rows and for columns."""
    return (values, values) if isinstance(values, int) else (values[0], values[-1])


def clamp_bounds(low: float | None = None, high: float | None = None, **named: float) -> tuple[float | None, float | None]:
    """Return the bounds of `aten.clamp`, which are given by position or as `min` and `max`; None for no bound."""
    return named.get("min", low), named.get("max", high)
