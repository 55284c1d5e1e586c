"""Writes a lowered graph as one XNNPACK graph, with clamps fused into the operators before them, and finds what cannot be written."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets.common import described, write_operator
from clipstep.export.targets.executorch_frames import is_conversion, is_slice_of_frames
from clipstep.export.targets.quantization import COMPUTED_IN, DYNAMIC, QUANTIZATION
from clipstep.export.targets.xnnpack import Graph, Sketch, Type, XnnValue
from clipstep.export.targets.xnnpack_elementwise import CLAMPS
from clipstep.export.targets.xnnpack_operations import OPERATORS
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.errors import ClipstepError, error_summary

aten = torch.ops.aten
LAYOUT_ONLY = (*RESHAPES, aten.permute.default, aten.transpose.int, aten.t.default)
"""Operators that change a value's shape or order of axes, but none of its elements."""
SPATIAL = (aten.conv2d.default, aten.max_pool2d.default, aten.avg_pool2d.default)
"""Operators that XNNPACK computes channels last (NHWC)."""
FUSES_CLAMP = (
    aten.conv2d.default,
    aten.linear.default,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.max_pool2d.default,
)
"""Operators whose XNNPACK node can clamp its result at no cost."""


def xnnpack_graph(module: fx.GraphModule) -> Graph:
    """Write a graph of float32 values of rank 4 or less, whose inputs and outputs have their axes in order in memory.

    Nodes are computed in float32 unless their metadata say otherwise by `COMPUTED_IN`. Values are converted where two types meet, such as before an
    output.

    Raises:
        Unsupported: it has an operator, or a setting of one, that is not written.
    """
    graph = Graph()
    found: dict[fx.Node, Any] = {}
    fused: dict[fx.Node, fx.Node] = {}  # Clamps, each with the operator that it is fused into.
    for node in module.graph.nodes:
        if node.op == "output":
            for source in node.args[0]:
                graph.output(found[source])
        else:
            found[node] = _written(module, graph, node, found, fused)
    graph.prune()
    return graph


def refusals(module: fx.GraphModule) -> dict[fx.Node, str]:
    """Return the operations of a graph that cannot be written, each with the reason, as a sentence. Their results are taken to be inputs.

    Raises:
        ClipstepError: a function that writes an operator fails otherwise than by refusing it.
    """
    sketch = Sketch()
    found: dict[fx.Node, Any] = {}
    fused: dict[fx.Node, fx.Node] = {}
    refused: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        try:
            if node.op != "output":
                found[node] = _written(module, sketch, node, found, fused)
        except Unsupported as reason:
            found[node] = _stand_in(sketch, node.meta["val"])
            refused[node] = _sentence(node, str(reason))
        except Exception as error:
            raise ClipstepError(
                "an operation could not be written for XNNPACK",
                got=f"{described(node)}: {type(error).__name__}: {error_summary(error)}",
                fix="export other targets, or avoid the operator in the network",
            ) from error
    return {node: reason for node, reason in refused.items() if node.op == "call_function" and node.target is not operator.getitem}


def _sentence(node: fx.Node, reason: str) -> str:
    setting = reason.removeprefix(described(node)).lstrip(",: ")
    return f"XNNPACK does not take {setting}" if setting else "XNNPACK has no such operator"


def _written(module: fx.GraphModule, graph: Graph, node: fx.Node, found: dict[fx.Node, Any], fused: dict[fx.Node, fx.Node]) -> Any:
    """Write what a node computes, and return its value."""
    if node.op == "get_attr":
        return getattr(module, str(node.target)).detach()
    _check_types(node)
    if node.op == "placeholder":
        return graph.input(node.meta["val"].shape, node.meta["val"].dtype)
    if node in fused:
        return found[node.all_input_nodes[0]]
    if node.target is operator.getitem:
        source: Any = node.args[0]
        return found[source][node.args[1]]
    if (scaled := _scale_of_bytes(node)) is not None:
        frames, scale = scaled
        graph.scale_bytes(found[frames], scale)
        return found[node.all_input_nodes[0]]
    more: dict[str, Any] = {"channels_last": _feeds_spatial(node)}
    clamp = _fusable_clamp(node) if node.target in FUSES_CLAMP else None
    graph.type = _type(node, of=node if clamp is None else clamp)
    graph.dynamic = DYNAMIC in node.meta
    if clamp is not None:
        more["clamp"] = CLAMPS[clamp.target](*clamp.args[1:], **clamp.kwargs)
    operands = {source: _operand(graph, found[source], node, source) for source in node.all_input_nodes}
    value = write_operator(OPERATORS, node, [graph], operands, **more)
    if clamp is not None:
        fused[clamp] = node
    return value


def _scale_of_bytes(node: fx.Node) -> tuple[fx.Node, float] | None:
    """Return an input of uint8 and the number by which a node multiplies its floats, or those of frames of it, if all of its floats are multiplied by
    that and nothing else reads them; else None.

    XNNPACK multiplies by it where it converts them.
    """
    if node.target is not aten.mul.Tensor or not isinstance(node.args[1], float) or not isinstance(node.args[0], fx.Node):
        return None
    read = node.args[0].args[0] if node.args[0].target is aten.to.dtype else None
    frames = read.args[0] if isinstance(read, fx.Node) and is_slice_of_frames(read) else read
    if not isinstance(frames, fx.Node) or frames.op != "placeholder" or frames.meta["val"].dtype != torch.uint8:
        return None
    readers = [user for one in frames.users for user in (one.users if is_slice_of_frames(one) else (one,))]
    alike = all(
        one.target is aten.to.dtype and [(user.target, user.args[1:]) for user in one.users] == [(node.target, node.args[1:])] for one in readers
    )
    return (frames, node.args[1]) if alike else None


def _type(node: fx.Node, of: fx.Node) -> Type:
    """Return the type in which a node takes the value `of` another one, or gives its own."""
    if getattr(node.meta["val"], "dtype", None) == torch.uint8:
        return torch.uint8
    computed_in: torch.dtype = node.meta.get(COMPUTED_IN, torch.float32)
    kind: Type = of.meta[QUANTIZATION] if computed_in == torch.int8 else computed_in
    return kind


def _operand(graph: Graph, value: Any, node: fx.Node, source: fx.Node) -> Any:
    """Return the value of a source as a node takes it; the functions that write constants choose their types."""
    return graph.converted(value, _type(node, of=source)) if isinstance(value, XnnValue) else value


def _check_types(node: fx.Node) -> None:
    """Check that a node computes float32 from float32. A conversion may read uint8, and the input that is read, or frames of it, may be that."""
    cuts_bytes = is_slice_of_frames(node) and all(is_conversion(user) for user in node.users)
    reads_bytes = node.target is aten.to.dtype or cuts_bytes
    for value in [source.meta["val"] for source in node.all_input_nodes if source.op != "get_attr"]:
        _check_type(value, reads_bytes)
    _check_type(node.meta["val"], node.op == "placeholder" or cuts_bytes)


def _check_type(value: Any, may_be_bytes: bool) -> None:
    if isinstance(value, Tensor) and value.dtype not in ((torch.float32, torch.uint8) if may_be_bytes else (torch.float32,)):
        raise Unsupported(f"values of {str(value.dtype).removeprefix('torch.')}")


def _stand_in(graph: Graph, value: Any) -> Any:
    """Return inputs in place of a value that is computed elsewhere, a tensor or several; what has a type that no input has is not read."""
    if isinstance(value, Tensor):
        return graph.input(value.shape, torch.uint8 if value.dtype == torch.uint8 else torch.float32)
    return [_stand_in(graph, one) for one in value]


def _users(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the users of a node; a permutation or reshape among them is replaced by its own users."""
    for user in node.users:
        if user.target in LAYOUT_ONLY:
            yield from _users(user)
        else:
            yield user


def _feeds_spatial(node: fx.Node) -> bool:
    return any(user.target in SPATIAL for user in _users(node))


def _fusable_clamp(node: fx.Node) -> fx.Node | None:
    """Return the clamp that is the only user of a node, directly or through permutations and reshapes, and of the same type, or None."""
    (user, *others) = node.users
    while user.target in LAYOUT_ONLY and not others:
        (user, *others) = user.users
    return user if not others and user.target in CLAMPS and user.meta.get(COMPUTED_IN) == node.meta.get(COMPUTED_IN) else None
