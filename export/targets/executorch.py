"""ExecuTorch, with all arithmetic in XNNPACK."""

import copy
import math
import operator
from dataclasses import replace
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
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import USUAL, Versions
from clipstep.export.targets.xnnpack import Graph
from clipstep.export.targets.xnnpack_graph import xnnpack_graph
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import Placement, Requires

METADATA_METHOD = "clipstep"
DATA_MOVEMENT = (*RESHAPES, torch.ops.aten.permute.default, torch.ops.aten.slice.Tensor)
"""Operators that copy elements of their input, unchanged."""
BACKEND = "XnnpackBackend"
PROFILE = EngineProfile(
    batch_limit=math.inf,
    gemm=True,
    gemm_per_tap=False,
    free_permutations=True,
    channel_major=False,
    padded_average_pools=False,
    winograd=True,
    slice_early=True,
)
"""XNNPACK, whose values keep any order of axes."""
VARIANTS = {
    "gemm": PROFILE,
    "gemm-per-tap": replace(PROFILE, gemm_per_tap=True),
    "direct": replace(PROFILE, gemm=False),
    "per-frame": replace(PROFILE, batch_limit=0),
    "no-winograd": replace(PROFILE, winograd=False),
}
"""The engine profiles that ``--tune`` measures. The home network takes 108.3 M ARM64 instructions with ``gemm``, 114.2 M with ``gemm-per-tap``,
146.5 M with ``direct`` and 108 M with ``per-frame``."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, versions: Versions = USUAL) -> Placement:
    """Writes ``path`` with the metadata in the constant method ``clipstep``.

    All of it is one graph of XNNPACK's but the conversion from uint8. If it has an operation that is not written here,
    ExecuTorch's own partitioner decides, and what XNNPACK does not take runs in portable kernels.

    Raises:
        ClipstepError: XNNPACK takes nothing at all.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        inner = xnnpack_graph(_of_floats(graph))
    except Unsupported:
        edge = _partitioned(graph, program, metadata)
        placement = _placement(edge.exported_program().graph_module)
        if not placement.delegated:
            raise ClipstepError(
                "XNNPACK takes nothing of the network", got=f"outside: {', '.join(placement.outside)}", fix="export other targets"
            ) from None
    else:
        edge = _around(inner, graph, program, metadata)
        placement = Placement(delegated={BACKEND: len(inner.nodes)}, outside=_placement(edge.exported_program().graph_module).outside)
    path.write_bytes(edge.to_executorch().buffer)
    return placement


def requires(path: Path) -> Requires:
    """The ExecuTorch that wrote the file: later ones load it too, earlier ones were not tried."""
    return Requires(executorch=f">={version('executorch').partition('+')[0]}")


def _of_floats(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with float32 frames, whatever it took: their own conversion, or that of each part of them, falls away."""
    graph = copy.deepcopy(graph)
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype):
        part: Any = node.args[0]
        while part.target in DATA_MOVEMENT:
            part = part.args[0]
        if part.op == "placeholder":
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    return graph


def _around(inner: Graph, graph: fx.GraphModule, program: StepProgram, metadata: str) -> EdgeProgramManager:
    """A program that converts the frames and calls the delegate."""
    outputs: Any = graph.graph.output_node().args[0]
    shapes = [value.meta["val"].shape for value in outputs]

    class Outputs(nn.Module):
        """What the delegate gives: its shapes are all that is read of it."""

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape) + inputs[0].sum() for shape in shapes)

    class Around(nn.Module):
        def __init__(self, delegate: nn.Module) -> None:
            super().__init__()
            self.delegate = delegate

        def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.delegate(frames.float(), *states))

    exported_outputs = torch.export.export(Outputs(), (program.inputs[0].float(), *program.inputs[1:]))
    content, constants = inner.serialized()
    delegate = LoweredBackendModule(exported_outputs, BACKEND, content, [], constants)
    exported = torch.export.export(Around(delegate), program.inputs)
    return to_edge(exported, constant_methods={METADATA_METHOD: metadata}, compile_config=EDGE_CONFIG)


def _partitioned(graph: fx.GraphModule, program: StepProgram, metadata: str) -> EdgeProgramManager:
    exported = torch.export.export(graph, program.inputs)
    for node in exported.graph.nodes:  # Each of some forty passes would copy the whole history of each node.
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(key, None)
    return to_edge_transform_and_lower(
        exported, partitioner=[XnnpackPartitioner()], constant_methods={METADATA_METHOD: metadata}, compile_config=EDGE_CONFIG
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
    return Placement(delegated=delegated, outside=tuple(outside))
