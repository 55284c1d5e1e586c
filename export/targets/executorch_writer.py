"""Writes ExecuTorch programs: what XNNPACK takes as XNNPACK graphs, operator by operator, and the rest for portable kernels between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.compat.executorch_internals import EDGE_CONFIG, LoweredBackendModule, to_edge
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import counted_reasons, most_sensitive
from clipstep.export.targets.dynamic8 import mark_convolutions
from clipstep.export.targets.executorch_formulas import FORMULAS, with_formulas
from clipstep.export.targets.executorch_frames import divide_frames, with_converted_frames
from clipstep.export.targets.executorch_kernels import check_kernels, check_products_are_inside, explaining
from clipstep.export.targets.executorch_parts import Part, Split, parts_of, split, value_of
from clipstep.export.targets.float16 import Ranges, measured_ranges
from clipstep.export.targets.int8 import quantize
from clipstep.export.targets.quantization import COMPUTED_IN, Narrowed
from clipstep.export.targets.xnnpack import Graph
from clipstep.export.targets.xnnpack_graph import refusals, xnnpack_graph
from clipstep.export.targets.xnnpack_operations import FLOAT32_ONLY
from clipstep.export.targets.xnnpack_operations import OPERATORS as XNNPACK_OPERATORS
from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.bundle.manifest import Placement, Requires
from clipstep.runtime.precision import FLOAT16_ARITHMETIC

__all__ = ["OPERATORS", "prepared", "requires", "write"]

aten = torch.ops.aten
OPERATORS: dict[Any, Callable[..., Any]] = {**XNNPACK_OPERATORS, **FORMULAS}
"""The operators that XNNPACK takes, or that are computed from others where it does not."""
BACKEND = "XnnpackBackend"
ROUNDS = 3
"""How often what formulas compute may itself be computed by formulas."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, format_version: int | None = None) -> Placement:
    """Write `path` with the metadata in the constant method `clipstep`. The format has no version to choose.

    All that XNNPACK takes is in as few XNNPACK graphs as possible: one if it takes everything. The rest runs in portable kernels.

    Raises:
        ClipstepError: neither XNNPACK nor portable kernels take an operator, or XNNPACK does not take a convolution or matrix product.
    """
    assert isinstance(graph, fx.GraphModule)
    module, refused = prepared(graph, program.inputs)
    if precision in FLOAT16_ARITHMETIC:
        divide_frames(module)
    narrowed = NARROWED[precision](module, program)
    found = split(module, refused)
    check_products_are_inside(found.reasons)
    parts = parts_of(module, found)
    with explaining(found.outside):
        delegates = [xnnpack_graph(part.graph) for part in parts]
        outer = _outer(module, found, parts, delegates)
        edge = to_edge(torch.export.export(outer, program.inputs), constant_methods={METADATA: metadata}, compile_config=EDGE_CONFIG)
        not_delegated = _outside_of_delegates(edge.exported_program().graph)
        written = edge.to_executorch()
    check_kernels(written, found.outside)
    path.write_bytes(written.buffer)
    return Placement(
        delegated={f"{BACKEND}{index or ''}": len(delegate.nodes) for index, delegate in enumerate(delegates)},
        not_delegated=not_delegated,
        reasons=counted_reasons(found.reasons),
        in_float32=counted_reasons({node: reason for node, reason in narrowed.in_float32.items() if node in found.inside}),
        in_float16=counted_reasons({node: reason for node, reason in narrowed.in_float16.items() if node in found.inside}),
        sensitive_layers=most_sensitive(narrowed.sensitivities),
        int8_layers=len(narrowed.sensitivities),
    )


def prepared(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> tuple[fx.GraphModule, Mapping[fx.Node, str]]:
    """Return the graph with formulas in place of what XNNPACK does not take, as far as there are any, and what it still does not take."""
    module = with_converted_frames(graph)
    refused = refusals(module)
    for _ in range(ROUNDS):
        with explaining(refused):
            module = with_formulas(module, inputs, refused)
        refused = refusals(module)
    return module, refused


def _halve(module: fx.GraphModule, ranges: Ranges) -> Narrowed:
    """Mark the operations that a float16 artifact computes in float16."""
    lacking = {node: FLOAT32_ONLY[node.target] for node in module.graph.nodes if node.target in FLOAT32_ONLY}
    wide = ranges.found | lacking
    for node in module.graph.nodes:
        if node.op == "call_function" and node not in wide and node.target is not aten.to.dtype:  # XNNPACK's for float16 has no vectors.
            node.meta[COMPUTED_IN] = torch.float16
    return Narrowed(wide)


def _with_convolutions_of_integers(module: fx.GraphModule, program: StepProgram) -> Narrowed:
    """Mark the operations that a dynamic8 artifact computes in float16, and its convolutions that are of integers."""
    ranges = measured_ranges(module, program, flushes=True)
    narrowed = _halve(module, ranges)
    return replace(narrowed, in_float16=mark_convolutions(module, ranges.largest))


NARROWED: Mapping[str, Callable[[fx.GraphModule, StepProgram], Narrowed]] = {
    "float32": lambda *_: Narrowed({}),
    "float16": lambda module, program: _halve(module, measured_ranges(module, program, flushes=True)),
    "dynamic8": _with_convolutions_of_integers,
    "int8": quantize,
}
"""For each precision, the function that marks what is computed in it."""


def requires(path: Path, precision: str) -> Requires:
    """Return the version of ExecuTorch that wrote the file as the lowest that it needs: later ones load it too, earlier ones were not tried.

    XNNPACK loads a file of float16 only on processors that it has float16 kernels for.
    """
    return Requires(executorch=f">={version('executorch').partition('+')[0]}", float16_processor=precision in FLOAT16_ARITHMETIC or None)


def _outer(module: fx.GraphModule, found: Split, parts: Sequence[Part], delegates: Sequence[Graph]) -> fx.GraphModule:
    """Return the graph with a call of a delegate in place of the operations of each part."""
    root, graph = nn.Module(), fx.Graph()
    values: dict[fx.Node, fx.Node] = {}

    def value(node: fx.Node) -> fx.Node:
        if node not in values:
            if node.op == "get_attr":
                root.register_buffer(str(node.target), getattr(module, str(node.target)).detach())
            values[node] = graph.node_copy(node, value)
        return values[node]

    for node in module.graph.find_nodes(op="placeholder"):
        value(node)
    for index in range(found.count + 1):
        for node in (node for node, before in found.outside.items() if before == index):
            value(node)
        if index < found.count:
            root.add_module(f"part_{index}", _delegate(parts[index], delegates[index]))
            call = graph.call_module(f"part_{index}", tuple(_ranked(graph, value(node), node) for node in parts[index].inputs))
            for place, node in enumerate(parts[index].outputs):
                result = graph.call_function(getitem, (call, place))
                values[node] = result if _shape(node) else graph.call_function(aten.view.default, (result, []))
    returned: Any = module.graph.output_node().args[0]
    given = {node for part in parts for node in part.outputs} | found.outside.keys()
    graph.output(tuple(values[node] if node in given else graph.call_function(aten.clone.default, (value(node),)) for node in returned))
    return fx.GraphModule(root, graph)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(value_of(node).shape)


def _ranked(graph: fx.Graph, value: fx.Node, node: fx.Node) -> fx.Node:
    """Return an input of a delegate, for which a number is a vector of one element."""
    return value if _shape(node) else graph.call_function(aten.view.default, (value, [1]))


def _delegate(part: Part, inner: Graph) -> nn.Module:
    """Return the module that calls the delegate with the XNNPACK graph of a part."""
    shapes = [_shape(node) or (1,) for node in part.outputs]

    class Outputs(nn.Module):
        """A stand-in for the delegate's program: ExecuTorch reads only the shapes of its outputs."""

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape) + inputs[0].sum() for shape in shapes)

    stand_in = torch.export.export(Outputs(), tuple(torch.zeros(_shape(node) or (1,), dtype=value_of(node).dtype) for node in part.inputs))
    content, constants = inner.serialized()
    delegate: nn.Module = LoweredBackendModule(stand_in, BACKEND, content, [], constants)
    return delegate


def _outside_of_delegates(graph: fx.Graph) -> tuple[str, ...]:
    """Return the names of the operations that portable kernels run."""
    called = (node.target for node in graph.nodes if node.op == "call_function" and node.target is not getitem)
    return tuple(target.name() for target in called if target is not torch.ops.higher_order.executorch_call_delegate)
