"""Decides which operations of a graph are computed in int8, and with which quantizations, by running the graph on real frames in float32.

Convolutions and matrix products of constant weights, and sums, are computed in int8, and what moves values between them. The
ends of a value's range are the least and the greatest number that it had on the frames, or those at a percentile of each step. What only moves a
value, as a slice or a concatenation does, shares the quantization of that value, so that nothing is rounded a second time.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.step import StepProgram
from clipstep.export.targets.accumulation import ADDS_UP, MOVEMENT, SUMS, accumulating
from clipstep.export.targets.bias_columns import balance_bias_columns
from clipstep.export.targets.bias_correction import correct_biases
from clipstep.export.targets.common import run_calibration
from clipstep.export.targets.quantization import COMPUTED_IN, MATRIX_PRODUCTS, QUANTIZATION, WEIGHT_LEVELS, Narrowed, Quantization, quantized_weight
from clipstep.export.targets.sensitivity import layer_sensitivities, layers_of
from clipstep.export.targets.xnnpack_elementwise import CLAMPS
from clipstep.network.spec import weights_sha256
from clipstep.runtime.errors import ClipstepError

aten = torch.ops.aten
WEIGHTED = frozenset((aten.conv2d.default, aten.linear.default))
"""Operators whose second argument is their weight."""
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
KEPT = "rounding its layer would move the prediction most"


@dataclass(frozen=True)
class Kernels:
    """What an engine's kernels take in int8, and which of them are fast."""

    target: str
    """Whose artifacts they compute."""
    limited: bool
    """Whether they take only quantizations whose scales have certain ratios: `RATIOS` and `LARGEST_PRODUCT`."""
    balanced: bool = False
    """Whether biases that are columns of weights are made smaller here; otherwise the writer sees to them, or there are none."""
    weight_levels: int = WEIGHT_LEVELS
    """The largest integer of a weight."""
    slower: Callable[[fx.GraphModule, Sequence[fx.Node]], Mapping[fx.Node, str]] = lambda *_: {}
    """Returns those of the operations that can be computed in int8 which are faster in float32, each with the reason."""


XNNPACK = Kernels("executorch", limited=True, balanced=True)


def quantize(graph: fx.GraphModule, program: StepProgram, kernels: Kernels = XNNPACK) -> Narrowed:
    """Write into the metadata of nodes that they are computed in int8, and with which quantizations.

    Args:
        graph: the step, lowered.
        program: its initial states; its sample frames and calibration videos, which are run as consecutive steps; the percentile at which ranges
            end; how many layers stay in float32, those which suffer most; and whether biases are corrected.
        kernels: those of the engine that will run the graph.

    Raises:
        ClipstepError: no layer would be left.
    """
    ranges = _ranges(graph, program)
    if kernels.balanced:
        balance_bias_columns(graph, ranges)
    adding = dict.fromkeys(accumulating(graph, len(program.states)), ADDS_UP)
    reasons = _chosen(graph, ranges, kernels, adding)
    computed = [node for node in graph.graph.nodes if node.meta.get(COMPUTED_IN) == torch.int8]
    sensitivities = layer_sensitivities(graph, program, {node for node in computed if node.target not in MOVEMENT}, kernels.weight_levels)
    if program.float32_layers:
        if program.float32_layers >= len(sensitivities):
            raise ClipstepError(
                f"no layer of {kernels.target} would be left for int8",
                got=f"--float32-layers {program.float32_layers}",
                expected=f"fewer than {len(sensitivities)}",
                fix=f"say it by target, --float32-layers {kernels.target}=N, or leave out int8",
            )
        layers, kept = layers_of(graph), list(sensitivities)[: program.float32_layers]
        wide = {node: KEPT for node in computed if layers[node] in kept and (node.target not in MOVEMENT or node.target in CLAMPS)}
        reasons = _chosen(graph, ranges, kernels, adding | wide)
        left = {layer: share for layer, share in sensitivities.items() if layer not in kept}
        sensitivities = {layer: share / (sum(left.values()) or 1.0) for layer, share in left.items()}
    if program.correct_biases:
        correct_biases(graph, program, kernels.weight_levels)
    return Narrowed(reasons, sensitivities=sensitivities)


def _chosen(
    graph: fx.GraphModule, ranges: Mapping[fx.Node, tuple[float, float]], kernels: Kernels, kept: Mapping[fx.Node, str]
) -> dict[fx.Node, str]:
    """Write into the metadata which nodes are computed in int8, all that can be but `kept`; return the others, each with the reason."""
    for node in graph.graph.nodes:
        for key in (COMPUTED_IN, QUANTIZATION):
            node.meta.pop(key, None)
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    reasons = {node: reason for node in nodes if (reason := _refusal(graph, node, ranges)) is not None} | dict(kept)
    reasons |= kernels.slower(graph, [node for node in nodes if node not in reasons])
    groups = _Groups((node for node in nodes if node.target in MOVEMENT and node not in reasons), _needed(graph, ranges))
    for node in nodes:
        if node not in reasons:
            for one in (node, *operands_of(node)):
                one.meta[QUANTIZATION] = groups.quantization(one)
    if kernels.limited:
        reasons |= {node: TOO_DIFFERENT for node in nodes if node not in reasons and not _is_within_limits(graph, node)}
    computed = {node for node in nodes if node not in reasons and node.target not in MOVEMENT}
    between = groups.touching(computed)
    reasons |= {node: NOT_BETWEEN for node in nodes if node not in reasons and node not in computed and node not in between}
    for node in nodes:
        if node not in reasons:
            node.meta[COMPUTED_IN] = torch.int8
    return reasons


def operands_of(node: fx.Node) -> list[fx.Node]:
    """Return the operands of a node that are computed or given, but not constant."""
    return [source for source in node.all_input_nodes if source.op != "get_attr"]


def constants_of(graph: fx.GraphModule, values: Iterable[Any]) -> list[Tensor]:
    """Return those of the operands of a node that are constant: tensors and numbers."""
    given = [getattr(graph, str(value.target)) if isinstance(value, fx.Node) and value.op == "get_attr" else value for value in values]
    return [torch.as_tensor(value, dtype=torch.float32) for value in given if isinstance(value, Tensor | int | float)]


def _refusal(graph: fx.GraphModule, node: fx.Node, ranges: Mapping[fx.Node, tuple[float, float]]) -> str | None:
    """Return why an operation cannot be computed in int8, as far as its operator and its operands tell."""
    if node.target not in MOVEMENT | SUMS | WEIGHTED | MATRIX_PRODUCTS:
        return NOT_WRITTEN
    if node.target is aten.to.dtype and node.all_input_nodes[0].meta["val"].dtype != torch.uint8:
        return NOT_WRITTEN
    if node.target in WEIGHTED and not constants_of(graph, node.args[1:2]):
        return COMPUTED_WEIGHTS
    if node.target in MATRIX_PRODUCTS and not any(constant.ndim == 2 for constant in constants_of(graph, node.args[:2])):
        return COMPUTED_WEIGHTS if not constants_of(graph, node.args[:2]) else NOT_WRITTEN
    if not all(one in ranges for one in (node, *operands_of(node))):
        return INFINITE
    return None


def _is_within_limits(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether XNNPACK has a kernel for the quantizations of an operation."""
    result: float = node.meta[QUANTIZATION].scale
    scales: list[float] = [source.meta[QUANTIZATION].scale for source in operands_of(node)]
    constants = constants_of(graph, node.args[:2])
    if node.target in SUMS:
        scales += [Quantization.of(constant).scale for constant in constants]
        return all(RATIOS[0] <= scale / result <= RATIOS[1] for scale in scales)
    if node.target in MOVEMENT:
        return True
    channels = int(node.target in MATRIX_PRODUCTS and node.args[0] in operands_of(node))  # The axis of the output channels in the constant.
    return float(quantized_weight(constants[0], channels)[1].max()) * scales[0] / result < LARGEST_PRODUCT


class _Groups:
    """The values that share a quantization, because operations only move them."""

    def __init__(self, moves: Iterable[fx.Node], ranges: Mapping[fx.Node, tuple[float, float]]) -> None:
        self._parents: dict[fx.Node, fx.Node] = {}
        self._ranges = ranges
        moving = set(moves)
        for node in moving:
            for source in operands_of(node):
                self._parents[self._root(source)] = self._root(node)
        self._members: dict[fx.Node, list[fx.Node]] = {}
        for node in list(self._parents):
            self._members.setdefault(self._root(node), []).append(node)
        self._quantizations = {root: self._shared(members) for root, members in self._members.items()}

    def _root(self, node: fx.Node) -> fx.Node:
        while (parent := self._parents.setdefault(node, node)) is not node:
            node = parent
        return node

    def _shared(self, nodes: Iterable[fx.Node]) -> Quantization:
        ends = [self._ranges[node] for node in nodes]
        return Quantization.of_range(min(least for least, _ in ends), max(greatest for _, greatest in ends))

    def quantization(self, node: fx.Node) -> Quantization:
        """Return the quantization of the group of a node."""
        return self._quantizations[self._root(node)] if node in self._parents else self._shared([node])

    def touching(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """Return the values of all groups that some of the nodes compute or use."""
        roots = {self._root(one) for node in nodes for one in (node, *operands_of(node)) if one in self._parents}
        return {member for root in roots for member in self._members[root]}


def _needed(graph: fx.GraphModule, ranges: Mapping[fx.Node, tuple[float, float]]) -> dict[fx.Node, tuple[float, float]]:
    """Return the ranges without what clamps cut off in any case, after operations that move values, and after sums.

    Of `relu(a + b)`, a number of `a` below `-max(b)` gives 0 as that number does, so the range of `a` need not go further down.
    """
    needed = dict(ranges)
    for node in reversed(graph.graph.nodes):
        if node in ranges and node.users and node.meta["val"].dtype != torch.uint8:  # Whose integers are those of the frames.
            ends = [_needed_by(graph, user, node, needed, ranges) for user in node.users]
            (least, greatest), low, high = ranges[node], min(low for low, _ in ends), max(high for _, high in ends)
            needed[node] = min(max(least, low), greatest), max(min(greatest, high), least)
    return needed


def _needed_by(
    graph: fx.GraphModule,
    user: fx.Node,
    node: fx.Node,
    needed: Mapping[fx.Node, tuple[float, float]],
    ranges: Mapping[fx.Node, tuple[float, float]],
) -> tuple[float, float]:
    """Return between which ends an operation needs the numbers of one of its operands."""
    if user.target in CLAMPS:
        bounds: tuple[float, float] = CLAMPS[user.target](*user.args[1:], **user.kwargs)
        return bounds
    if user.target in MOVEMENT and user in needed:
        return needed[user]
    if user.target is aten.add.Tensor and user in needed and not user.kwargs:
        others = [ranges.get(one) for one in operands_of(user) if one is not node]
        others += [(float(one.min()), float(one.max())) for one in constants_of(graph, user.args)]
        if len(others) == 1 and others[0] is not None:
            (low, high), (least, greatest) = needed[user], others[0]
            return low - greatest, high - least
    return -math.inf, math.inf


def _ranges(graph: fx.GraphModule, program: StepProgram) -> dict[fx.Node, tuple[float, float]]:
    """Return the range of each value of a graph, as it was found before if the program has it."""
    key = _hash(graph)
    if key not in program.found_ranges:
        ranges = _Ranges(graph, program.calibration_percentile)
        ranges.run_calibration(program)
        program.found_ranges[key] = {node.name: ends for node, ends in ranges.found.items()}
    found = program.found_ranges[key]
    return {node: found[node.name] for node in graph.graph.nodes if node.name in found}


def _hash(graph: fx.GraphModule) -> str:
    """Return a hash of a graph's operations and constants."""
    constants = {str(node.target): getattr(graph, str(node.target)) for node in graph.graph.find_nodes(op="get_attr")}
    return hashlib.sha256(f"{graph.graph} {weights_sha256(constants)}".encode()).hexdigest()


class _Ranges(fx.Interpreter):
    """Runs a graph and collects in `found` the ends of the range of each value of floats that is always finite.

    In a run they are the numbers at a percentile, and at the same one from below; of several runs, the least and the greatest of these.
    """

    def __init__(self, graph: fx.GraphModule, percentile: float) -> None:
        super().__init__(graph)
        self._percentile = percentile
        self.found: dict[fx.Node, tuple[float, float]] = {}
        self._infinite: set[fx.Node] = set()

    def run_calibration(self, program: StepProgram) -> None:
        run_calibration(self, program)
        for node in self._infinite:
            self.found.pop(node, None)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output" and isinstance(value, Tensor) and value.dtype == torch.uint8:
            self.found[n] = BYTES
        elif n.op != "output" and isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel():
            least, greatest = _ends(value, self._percentile)
            if not bool(value.isfinite().all()):
                self._infinite.add(n)
            before = self.found.get(n, (least, greatest))
            self.found[n] = min(before[0], least), max(before[1], greatest)
        return value


def _ends(value: Tensor, percentile: float) -> tuple[float, float]:
    """Return the numbers of a value at a percentile from below and from above: those that leave out at most the rest at either end."""
    left_out = int(round(value.numel() * (100 - percentile) / 100, 6))  # Rounded, because 100 - 99.9 is a little less than 0.1.
    if not left_out:
        least, greatest = value.aminmax()
        return float(least), float(greatest)
    numbers = value.flatten()
    return float(numbers.kthvalue(left_out + 1).values), float(numbers.kthvalue(numbers.numel() - left_out).values)
