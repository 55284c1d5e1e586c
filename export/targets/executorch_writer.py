"""Writes ExecuTorch programs: one XNNPACK graph, operator by operator, or what ExecuTorch's own partitioner makes of the step."""

import copy
import operator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.compat.executorch_internals import (
    EDGE_CONFIG,
    EdgeProgramManager,
    LoweredBackendModule,
    XnnpackPartitioner,
    to_edge,
    to_edge_transform_and_lower,
)
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import converting
from clipstep.export.targets.xnnpack import Graph
from clipstep.export.targets.xnnpack_graph import xnnpack_graph
from clipstep.export.targets.xnnpack_operations import OPERATORS
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.bundle.manifest import Placement, Requires
from clipstep.runtime.errors import ClipstepError

__all__ = ["OPERATORS", "requires", "write"]

DATA_MOVEMENT = (*RESHAPES, torch.ops.aten.permute.default, torch.ops.aten.slice.Tensor)
"""Operators that copy elements of their input, unchanged."""
BACKEND = "XnnpackBackend"


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, format_version: int | None = None) -> Placement:
    """Write `path` with the metadata in the constant method `clipstep`. The format has no version to choose.

    The whole step is one XNNPACK graph, except for the conversion of the frames from uint8. If the step has an operator that is not
    written here, ExecuTorch's own partitioner decides what XNNPACK gets, and the rest runs in portable kernels.

    Raises:
        ClipstepError: XNNPACK takes no operator of the step.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        inner = xnnpack_graph(_with_float_frames(graph))
    except Unsupported as reason:
        with converting("ExecuTorch", reason):
            edge = _partitioned(graph, program, metadata)
        placement = _placement(edge.exported_program().graph_module)
        if not placement.delegated:
            raise ClipstepError(
                "XNNPACK takes nothing of the network", got=f"outside: {', '.join(placement.not_delegated)}", fix="export other targets"
            ) from None
    else:
        edge = _calling_delegate(inner, graph, program, metadata)
        placement = Placement(delegated={BACKEND: len(inner.nodes)}, not_delegated=_placement(edge.exported_program().graph_module).not_delegated)
    path.write_bytes(edge.to_executorch().buffer)
    return placement


def requires(path: Path) -> Requires:
    """Return the version of ExecuTorch that wrote the file as the lowest that it needs: later ones load it too, earlier ones were not tried."""
    return Requires(executorch=f">={version('executorch').partition('+')[0]}")


def _with_float_frames(graph: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with float32 frames as its input: conversions of the frames, or of parts of them, are removed."""
    graph = copy.deepcopy(graph)
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype):
        part: Any = node.args[0]
        while part.target in DATA_MOVEMENT:
            part = part.args[0]
        if part.op == "placeholder":
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    return graph


def _calling_delegate(inner: Graph, graph: fx.GraphModule, program: StepProgram, metadata: str) -> EdgeProgramManager:
    """Return a program that converts the frames and passes them to a delegate with the graph `inner`."""
    outputs: Any = graph.graph.output_node().args[0]
    shapes = [value.meta["val"].shape for value in outputs]

    class Outputs(nn.Module):
        """A stand-in for the delegate's program: ExecuTorch reads only the shapes of its outputs."""

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape) + inputs[0].sum() for shape in shapes)

    class Caller(nn.Module):
        def __init__(self, delegate: nn.Module) -> None:
            super().__init__()
            self.delegate = delegate

        def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.delegate(frames.float(), *states))

    exported_outputs = torch.export.export(Outputs(), (program.inputs[0].float(), *program.inputs[1:]))
    content, constants = inner.serialized()
    delegate = LoweredBackendModule(exported_outputs, BACKEND, content, [], constants)
    exported = torch.export.export(Caller(delegate), program.inputs)
    return to_edge(exported, constant_methods={METADATA: metadata}, compile_config=EDGE_CONFIG)


def _partitioned(graph: fx.GraphModule, program: StepProgram, metadata: str) -> EdgeProgramManager:
    exported = torch.export.export(graph, program.inputs)
    for node in exported.graph.nodes:  # Otherwise each of about forty passes would copy each node's whole history.
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(key, None)
    return to_edge_transform_and_lower(
        exported, partitioner=[XnnpackPartitioner()], constant_methods={METADATA: metadata}, compile_config=EDGE_CONFIG
    )


def _placement(graph: fx.GraphModule) -> Placement:
    delegated: dict[str, int] = {}
    outside: list[str] = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        if node.target is torch.ops.higher_order.executorch_call_delegate:
            lowered = getattr(graph, node.args[0].target)
            count = sum(inner.op == "call_function" for inner in lowered.original_module.graph.nodes)
            delegated[f"{lowered.backend_id}{len(delegated) or ''}"] = count
        else:
            outside.append(node.target.name())
    return Placement(delegated=delegated, not_delegated=tuple(outside))
