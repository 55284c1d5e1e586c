"""Reports how each convolution of a network was lowered: the strategy, its arithmetic, and the elements that it moves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.compat.torch_internals import keeping_metadata
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.lowering.lower import lower_graph
from clipstep.export.lowering.operators import CONVOLUTIONS, arguments, triple
from clipstep.export.lowering.passes.editing import constant
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.source_lines import module_path

aten = torch.ops.aten
COPIES = (
    aten.cat.default,
    aten.slice.Tensor,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.pixel_unshuffle.default,
    aten.expand.default,
    aten.index_select.default,
)
"""Operators that copy elements, in every engine."""
PERMUTATIONS = (aten.permute.default, aten.transpose.int)
"""Operators that copy elements, unless permutations are free in an engine."""


@dataclass(frozen=True)
class LoweredLayer:
    """A convolution of the network, and how it was lowered."""

    name: str
    """The path of its module, such as `network.slow.stem.conv`."""
    weight: tuple[int, ...]
    """The shape of its weight, `(O, C / groups, kT, kH, kW)`."""
    stride: tuple[int, ...]
    strategy: str
    """The name of one of `clipstep.export.lowering.rules.strategies.STRATEGIES`."""
    fmas_needed: int
    """Multiply-accumulates of the convolution as it was trained, those on its padding included."""
    fmas: int
    """Multiply-accumulates after the lowering. They are fewer than `fmas_needed` if taps on the padding are left out, or by Winograd's filtering."""
    elements_moved: int
    """Elements that slices, concatenations, paddings and permutations write. Operations that two layers share are counted for the first."""


def explain(graph: fx.GraphModule, inputs: tuple[Tensor, ...], profile: EngineProfile) -> tuple[LoweredLayer, ...]:
    """Return the convolutions of a simplified graph, in order, as they are lowered with a profile.

    Args:
        graph: what `clipstep.export.lowering.lower.simplified` returned.
        inputs: the example inputs of the step.

    Raises:
        LoweringError: as `clipstep.export.lowering.lower.lower_graph`.
    """
    strategies: dict[str, str] = {}
    with keeping_metadata():  # So that the metadata of each lowered node names the node that it was made from.
        lowered = lower_graph(graph, inputs, profile, strategies=strategies)
    made: dict[str, list[fx.Node]] = {}
    for node in lowered.graph.nodes:
        if node.op == "call_function" and node.meta.get("from_node"):
            made.setdefault(node.meta["from_node"][-1].name, []).append(node)
    return tuple(
        _layer(graph, node, strategies[node.name], made.get(node.name, ()), profile)
        for node in graph.graph.nodes
        if node.target in CONVOLUTIONS and node.name in strategies
    )


def _layer(graph: fx.GraphModule, node: fx.Node, strategy: str, made: Sequence[fx.Node], profile: EngineProfile) -> LoweredLayer:
    _, weight, _, stride = arguments(node, None, None, None, (1,))[:4]
    shape = tuple((constant(graph, weight) if weight.op == "get_attr" else weight.meta["val"]).shape)
    copies = COPIES if profile.free_permutations else (*COPIES, *PERMUTATIONS)
    return LoweredLayer(
        name=module_path(node) or node.name,
        weight=shape,
        stride=triple(stride),
        strategy=strategy,
        fmas_needed=node.meta["val"].numel() * math.prod(shape[1:]),
        fmas=sum(map(_fmas, made)),
        elements_moved=sum(one.meta["val"].numel() for one in made if one.target in copies and not _is_free(one)),
    )


def _is_free(node: fx.Node) -> bool:
    """Whether a node moves no elements: a slice that is only sliced again, or a permutation that only moves axes of size 1."""
    if node.target == aten.slice.Tensor:
        return all(user.target == aten.slice.Tensor for user in node.users)
    if node.target not in PERMUTATIONS:
        return False
    args: Any = node.args
    shape = _shape(args[0])
    axes = swapped_axes(len(shape), *args[1:3]) if node.target == aten.transpose.int else [axis % len(shape) for axis in args[1]]
    long = [axis for axis in axes if shape[axis] > 1]
    return long == sorted(long)


def _fmas(node: fx.Node) -> int:
    """Return the multiply-accumulates of a convolution or matrix product of rank 4 or less; 0 for other nodes."""
    if node.target in (aten.conv2d.default, aten.linear.default):
        return int(node.meta["val"].numel() * math.prod(_shape(node.args[1])[1:]))
    if node.target in (aten.mm.default, aten.bmm.default, aten.matmul.default):
        return int(node.meta["val"].numel() * _shape(node.args[0])[-1])
    return 0


def _shape(node: Any) -> tuple[int, ...]:
    if "val" in node.meta:
        return tuple(node.meta["val"].shape)
    return tuple(getattr(node.graph.owning_module, node.target).shape)
