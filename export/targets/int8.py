"""Decides which operations of a graph are computed in int8, and with which quantizations, by running the graph on real frames in float32.

Convolutions and matrix products of constant weights, and sums, are computed in int8, and what moves values between them. The
ends of a value's range are the least and the greatest number that it had on the frames. What only moves a value, as a slice or a concatenation
does, shares the quantization of that value, so that nothing is rounded a second time.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.step import StepProgram
from clipstep.export.targets.quantization import COMPUTED_IN, QUANTIZATION, Quantization, quantized_weight
from clipstep.export.targets.xnnpack_elementwise import CLAMPS

aten = torch.ops.aten
MOVEMENT = frozenset(
    (
        *(*RESHAPES, aten.permute.default, aten.transpose.int, aten.contiguous.default),
        *(aten.slice.Tensor, aten.select.int, aten.flip.default, aten.cat.default),
        *(aten.pad.default, aten.constant_pad_nd.default, aten.max_pool2d.default, *CLAMPS, aten._to_copy.default),
    )
)
"""Operators whose result holds numbers of their operands, and constants."""
SUMS = frozenset((aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar))
KERNELS = frozenset((aten.conv2d.default, aten.linear.default))
"""Operators whose second argument is their weight."""
MATRIX_PRODUCTS = frozenset((aten.mm.default, aten.matmul.default))
RATIOS = (2.0**-8, 2.0**7)
"""XNNPACK's kernels for sums take operands whose scale is at least and at most this many times that of the result."""
LARGEST_PRODUCT = 2.0**8
"""XNNPACK's kernels for products take scales whose product is below this many times the scale of the result."""
BYTES = (0.0, 255.0)
"""The range of values of uint8, such as frames, whatever those of the sample hold."""
NOT_WRITTEN = "it is not written in int8"
COMPUTED_WEIGHTS = "its weights are computed"
INFINITE = "its values are not all finite"
TOO_DIFFERENT = "the ranges of its values are too different"
NOT_BETWEEN = "it moves values between operations in float32"


def quantize(graph: fx.GraphModule, program: StepProgram) -> dict[fx.Node, str]:
    """Write into the metadata of nodes that they are computed in int8, and with which quantizations.

    Args:
        graph: the step, lowered.
        program: its initial states, and its sample frames and calibration videos, which are run as consecutive steps.

    Returns:
        The operations that stay in float32, each with the reason.
    """
    ranges = _Ranges(graph)
    ranges.run_steps(program)
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    reasons = {node: reason for node in nodes if (reason := _refusal(graph, node, ranges.found)) is not None}
    groups = _Groups((node for node in nodes if node.target in MOVEMENT and node not in reasons), ranges.found)
    for node in nodes:
        if node not in reasons:
            for one in (node, *_operands(node)):
                one.meta[QUANTIZATION] = groups.quantization(one)
    reasons |= {node: TOO_DIFFERENT for node in nodes if node not in reasons and not _has_kernel(graph, node)}
    computed = {node for node in nodes if node not in reasons and node.target not in MOVEMENT}
    between = groups.touching(computed)
    reasons |= {node: NOT_BETWEEN for node in nodes if node not in reasons and node not in computed and node not in between}
    for node in nodes:
        if node not in reasons:
            node.meta[COMPUTED_IN] = torch.int8
    return reasons


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the operands of a node that are computed or given, but not constant."""
    return [source for source in node.all_input_nodes if source.op != "get_attr"]


def _constants(graph: fx.GraphModule, values: Iterable[Any]) -> list[Tensor]:
    """Return those of the operands of a node that are constant: tensors and numbers."""
    given = [getattr(graph, str(value.target)) if isinstance(value, fx.Node) and value.op == "get_attr" else value for value in values]
    return [torch.as_tensor(value, dtype=torch.float32) for value in given if isinstance(value, Tensor | int | float)]


def _refusal(graph: fx.GraphModule, node: fx.Node, ranges: Mapping[fx.Node, tuple[float, float]]) -> str | None:
    """Return why an operation cannot be computed in int8, as far as its operator and its operands tell."""
    if node.target not in MOVEMENT | SUMS | KERNELS | MATRIX_PRODUCTS:
        return NOT_WRITTEN
    if node.target in KERNELS and not _constants(graph, node.args[1:2]):
        return COMPUTED_WEIGHTS
    if node.target in MATRIX_PRODUCTS and not any(constant.ndim == 2 for constant in _constants(graph, node.args[:2])):
        return COMPUTED_WEIGHTS if not _constants(graph, node.args[:2]) else NOT_WRITTEN
    if not all(one in ranges for one in (node, *_operands(node))):
        return INFINITE
    return None


def _has_kernel(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the quantizations of an operation are such that there is a kernel for them."""
    result: float = node.meta[QUANTIZATION].scale
    scales: list[float] = [source.meta[QUANTIZATION].scale for source in _operands(node)]
    constants = _constants(graph, node.args[:2])
    if node.target in SUMS:
        scales += [Quantization.of(constant).scale for constant in constants]
        return all(RATIOS[0] <= scale / result <= RATIOS[1] for scale in scales)
    if node.target in MOVEMENT:
        return True
    channels = int(node.target in MATRIX_PRODUCTS and node.args[0] in _operands(node))  # The axis of the output channels in the constant.
    return float(quantized_weight(constants[0], channels)[1].max()) * scales[0] / result < LARGEST_PRODUCT


class _Groups:
    """The values that share a quantization, because operations only move them."""

    def __init__(self, moves: Iterable[fx.Node], ranges: Mapping[fx.Node, tuple[float, float]]) -> None:
        self._parents: dict[fx.Node, fx.Node] = {}
        self._ranges = ranges
        moving = set(moves)
        for node in moving:
            for source in _operands(node):
                self._parents[self._root(source)] = self._root(node)
        self._members: dict[fx.Node, list[fx.Node]] = {}
        for node in list(self._parents):
            self._members.setdefault(self._root(node), []).append(node)
        clamped = _clamped(moving, self._parents)
        self._quantizations: dict[fx.Node, Quantization] = {}
        for root, members in self._members.items():
            self._quantizations[root] = self._shared([node for node in members if node not in clamped] or members)

    def _root(self, node: fx.Node) -> fx.Node:
        while (parent := self._parents.setdefault(node, node)) is not node:
            node = parent
        return node

    def _shared(self, nodes: Iterable[fx.Node]) -> Quantization:
        ends = [self._ranges[node] for node in nodes]
        return Quantization.of_range(min(least for least, _ in ends), max(greatest for _, greatest in ends))

    def quantization(self, node: fx.Node) -> Quantization:
        """Return the quantization of the group of a node. What clamps cut off needs no numbers of it."""
        return self._quantizations[self._root(node)] if node in self._parents else self._shared([node])

    def touching(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """Return the values of all groups that some of the nodes compute or use."""
        roots = {self._root(one) for node in nodes for one in (node, *_operands(node)) if one in self._parents}
        return {member for root in roots for member in self._members[root]}


def _clamped(moving: Collection[fx.Node], values: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the values that reach everything that uses them through clamps, of which all between only moves them."""
    found: set[fx.Node] = set()
    for node in sorted(values, reverse=True):
        if node.users and all(user in moving and (user.target in CLAMPS or user in found) for user in node.users):
            found.add(node)
    return found


class _Ranges(fx.Interpreter):
    """Runs a graph and collects in `found` the least and the greatest number of each value of floats that is always finite."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[fx.Node, tuple[float, float]] = {}
        self._infinite: set[fx.Node] = set()

    def run_steps(self, program: StepProgram) -> None:
        """Run the sample frames and each calibration video, as consecutive steps of streams of their own."""
        with torch.no_grad():
            for subclips in (program.subclips(program.sample), *program.calibration):
                states = list(program.states.values())
                for subclip in subclips:
                    _, *others = self.run(subclip.to(program.frames.dtype), *states)
                    states = others[: len(states)]
        for node in self._infinite:
            self.found.pop(node, None)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output" and isinstance(value, Tensor) and value.dtype == torch.uint8:
            self.found[n] = BYTES
        elif n.op != "output" and isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel():
            least, greatest = (float(end) for end in value.aminmax())
            if not bool(value.isfinite().all()):
                self._infinite.add(n)
            before = self.found.get(n, (least, greatest))
            self.found[n] = min(before[0], least), max(before[1], greatest)
        return value
