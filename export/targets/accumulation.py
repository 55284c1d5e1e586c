"""Finds what adds up over the steps in a graph: counters, running sums and means, and other states whose next value is a sum with the one before.

In a lower precision each step would round such a state anew. A small change of a large number would then be lost, in every step, and a number that
grows would come to the end of what an integer of 8 bits holds. No frames of an export show that, because their steps are few.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets.common import IDENTITY
from clipstep.export.targets.xnnpack_elementwise import CLAMPS

aten = torch.ops.aten
MOVEMENT = frozenset(
    (
        *(*RESHAPES, aten.permute.default, aten.transpose.int, aten.contiguous.default),
        *(aten.slice.Tensor, aten.select.int, aten.flip.default, aten.cat.default),
        *(aten.pad.default, aten.constant_pad_nd.default, aten.max_pool2d.default, *CLAMPS, aten.to.dtype),
    )
)
"""Operators whose result holds numbers of their operands, and constants."""
SUMS = frozenset((aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar))
TOTALS = SUMS | {aten.sum.dim_IntList, aten.mean.dim}
"""Operators that add up numbers of one or of several values."""
SCALED = frozenset((aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar))
KEEPING = MOVEMENT | TOTALS | frozenset(IDENTITY)
"""Operators through which a sum stays a sum of the same numbers."""
ADDS_UP = "it adds up over the steps"
Place = tuple[int, int, int]
"""Where a part of a state is: an axis, its start, and its end."""


def accumulating(graph: fx.GraphModule, states: int) -> list[fx.Node]:
    """Return, in their order, the operations in which a state adds up over the steps, and, of one that may grow for ever, those that compute with it.

    A state adds up if its next value is computed from the one before by a sum, and else by operators that move or scale it. Of a state that holds
    several values one after another, as `clipstep.network.packed_state` writes it, each is looked at by itself.

    Args:
        graph: the step, lowered: `(frames, *states) -> (first output, *next states, *others)`.
        states: their number.
    """
    inputs = graph.graph.find_nodes(op="placeholder")[1 : 1 + states]
    outputs: Any = graph.graph.output_node().args[0]
    found: set[fx.Node] = set()
    for state, following in zip(inputs, outputs[1:], strict=False):  # Other outputs follow.
        for start, place in _parts_read(state):
            ends = [end for end, other in _parts_written(following) if _overlap(place, other)]
            found |= _between(start, ends, KEEPING | SCALED)
            if _between(start, ends, KEEPING):
                found |= _computed_with(start)
    return [node for node in graph.graph.nodes if node in found]


def _parts_read(state: fx.Node) -> list[tuple[fx.Node, Place | None]]:
    """Return the slices of a state with their places or, if it is used in other ways too, itself."""
    if not all(user.target is aten.slice.Tensor for user in state.users):
        return [(state, None)]
    return [(user, (int(user.args[1]), int(user.args[2]), int(user.args[3]))) for user in state.users]  # type: ignore[arg-type]


def _parts_written(following: fx.Node) -> list[tuple[fx.Node, Place | None]]:
    """Return the values that are concatenated to a state's next value with their places, or that value."""
    if following.target is not aten.cat.default:
        return [(following, None)]
    parts: Any = following.args[0]
    axis, start, found = int(following.args[1]) if len(following.args) > 1 else 0, 0, list[tuple[fx.Node, Place | None]]()  # type: ignore[arg-type]
    for part in parts:
        end = start + part.meta["val"].shape[axis]
        found.append((part, (axis, start, end)))
        start = end
    return found


def _overlap(one: Place | None, other: Place | None) -> bool:
    return one is None or other is None or one[0] != other[0] or (one[1] < other[2] and other[1] < one[2])


def _between(start: fx.Node, ends: Collection[fx.Node], passing: Collection[Any]) -> set[fx.Node]:
    """Return the operations on ways from a value to others through some operators; none if no total is among them."""
    after = _reached((start,), lambda node: list(node.users), passing)
    found = after & _reached([end for end in ends if end.target in passing], lambda node: node.all_input_nodes, passing)
    return found if any(node.target in TOTALS for node in found) else set()


def _reached(starts: Iterable[fx.Node], following: Callable[[fx.Node], Sequence[fx.Node]], passing: Collection[Any]) -> set[fx.Node]:
    """Return what is reached from some nodes through some operators, the nodes themselves if they are operations."""
    found, waiting = set[fx.Node](), list(starts)
    found |= {node for node in waiting if node.op == "call_function"}
    while waiting:
        for node in following(waiting.pop()):
            if node.target in passing and node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _computed_with(start: fx.Node) -> set[fx.Node]:
    """Return the operations that compute with a value that may grow for ever: those that it passes, up to clamps that hold it, and the next ones."""
    found, waiting = set[fx.Node](), [start]
    while waiting:
        for node in waiting.pop().users:
            if node.op != "call_function" or node in found:
                continue
            found.add(node)
            by_constant = all(source.op == "get_attr" for source in node.all_input_nodes[1:])
            if (node.target in KEEPING and not _is_held(node)) or (node.target in SCALED and by_constant):
                waiting.append(node)
    return found


def _is_held(node: fx.Node) -> bool:
    """Whether an operation is a clamp with an upper and a lower end."""
    bounds: Any = CLAMPS.get(node.target)
    return bounds is not None and all(abs(end) < float("inf") for end in bounds(*node.args[1:], **node.kwargs))
