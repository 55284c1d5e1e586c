"""Puts one conversion of the whole frames in place of conversions of their parts, and keeps what follows from being small in float16."""

from typing import Any

import torch
from torch import fx

from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.lowering.passes.editing import constant
from clipstep.export.targets.float16 import PRODUCTS

aten = torch.ops.aten
DATA_MOVEMENT = (*RESHAPES, aten.permute.default, aten.slice.Tensor)
"""Operators that copy elements of their input, unchanged."""
CONVERSIONS = (aten.to.dtype, aten._to_copy.default)


def with_converted_frames(module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with an input of another type converted to float32 before anything else is done with it, where parts of it are converted,
    because XNNPACK computes in floating point only.

    It is converted as a whole or, if it is first cut into frames, each frame where it is needed, so that the floats of all of them are never in
    memory at once. A conversion from float32 to float32 falls away.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    converted: dict[fx.Node, fx.Node] = {}
    inputs = module.graph.find_nodes(op="placeholder")
    origins = {_origin(node) for node in module.graph.nodes if is_conversion(node)}
    wanted = {root for one in inputs if one in origins and one.meta["val"].dtype != torch.float32 for root in _roots(one)}
    for node in module.graph.nodes:
        if is_conversion(node) and node.all_input_nodes[0].meta["val"].dtype == torch.float32:
            copies[node] = copies[node.all_input_nodes[0]]
        elif is_conversion(node) and node.all_input_nodes[0] in converted:
            copies[node] = converted[node.all_input_nodes[0]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        written = inputs if node is inputs[-1] else () if node in inputs else (node,)  # Inputs are together, before anything else.
        for one in (one for one in written if one in wanted):
            converted[one] = _as_float(graph.call_function(aten.to.dtype, (copies[one], torch.float32)), one)
        if node.target in DATA_MOVEMENT and node.all_input_nodes[0] in converted:
            converted[node] = _as_float(graph.node_copy(node, converted.__getitem__), node)
    for node in reversed(graph.nodes):
        if node.target in (*DATA_MOVEMENT, *CONVERSIONS) and not node.users:
            graph.erase_node(node)
    return fx.GraphModule(module, graph)


def _roots(frames: fx.Node) -> list[fx.Node]:
    """Return what is converted of an input: its slices of whole frames, if it is only read by these and no frame is in two of them, or itself."""
    cuts: list[Any] = list(frames.users)
    if not all(is_slice_of_frames(cut) for cut in cuts):
        return [frames]
    read = [frame for cut in cuts for frame in range(len(frames.meta["val"]))[cut.args[2] : cut.args[3]]]
    return cuts if len(set(read)) == len(read) else [frames]


def is_slice_of_frames(node: fx.Node) -> bool:
    """Whether a node takes consecutive entries along the first axis of an input."""
    source: Any = node.args[0] if node.target is aten.slice.Tensor else None
    return bool(source is not None and source.op == "placeholder" and len(node.args) == 4 and node.args[1] == 0)


def is_conversion(node: fx.Node) -> bool:
    """Whether a node converts a value to float32."""
    return node.target in CONVERSIONS and node.meta["val"].dtype == torch.float32


def _origin(conversion: fx.Node) -> fx.Node:
    """Return what is converted, before it was moved."""
    part = conversion.all_input_nodes[0]
    while part.target in DATA_MOVEMENT:
        part = part.all_input_nodes[0]
    return part


def _as_float(copy: fx.Node, node: fx.Node) -> fx.Node:
    copy.meta["val"] = node.meta["val"].to(torch.float32)
    return copy


FRAMES_DIVISOR = 128
"""A power of two, so that nothing else is rounded. Frames of 0..255 become numbers of 0 to 2, and weights get about the magnitude that they have for
normalised frames. The smallest number of a frame, 1/128, is large enough for the ranges of dynamic8."""
LINEAR = frozenset((*DATA_MOVEMENT, aten.transpose.int, aten.contiguous.default, aten.cat.default))
"""Operators whose result is divided if all of their operands are."""
SUMS = frozenset((aten.add.Tensor, aten.sub.Tensor))
"""The same, if no operand is a number."""


def divide_frames(module: fx.GraphModule) -> None:
    """Divide frames of uint8 by `FRAMES_DIVISOR` where they become floats, and multiply the weights that they reach by as much.

    The lowering folds the division by the standard deviation, often 255, into these weights, which makes many of them too small for float16. A graph
    in which more than moves, sums with constants and products stands between is left as it is.
    """
    converted = [node for node in module.graph.nodes if is_conversion(node) and node.all_input_nodes[0].meta["val"].dtype == torch.uint8]
    divided, factors = set(converted), dict[tuple[fx.Node, fx.Node], float]()
    for node in module.graph.nodes:
        if node in converted or not divided.intersection(node.all_input_nodes):
            continue
        others = [source for source in node.all_input_nodes if source not in divided]
        if any(source.op != "get_attr" for source in others):
            return
        if node.target in PRODUCTS and [one in divided for one in node.args[:3]] in ([True, False], [False, True], [True, False, False]):
            factors.update({(node, source): FRAMES_DIVISOR for source in others if source in node.args[:2]})
        elif node.target in LINEAR or _pads_with_zeros(node) or (node.target in SUMS and all(isinstance(one, fx.Node) for one in node.args)):
            factors.update({(node, source): 1 / FRAMES_DIVISOR for source in others})
            divided.add(node)
        else:
            return
    for node in converted:
        with module.graph.inserting_after(node):
            quotient = module.graph.call_function(aten.mul.Tensor, (node, 1 / FRAMES_DIVISOR))
        quotient.meta.update(node.meta)
        node.replace_all_uses_with(quotient, delete_user_cb=lambda user, own=quotient: user is not own)
    for (node, source), factor in factors.items():
        name = f"{source.name}_of_{node.name}"
        module.register_buffer(name, constant(module, source) * factor)
        with module.graph.inserting_before(node):
            node.replace_input_with(source, module.graph.get_attr(name))


def _pads_with_zeros(node: fx.Node) -> bool:
    return node.target in (aten.pad.default, aten.constant_pad_nd.default) and all(value in ("constant", None, 0) for value in node.args[2:])
