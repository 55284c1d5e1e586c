"""ExecuTorch, with all arithmetic in XNNPACK."""

import operator
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import fx, nn

from clipstep.export.step import StepProgram
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import Placement

METADATA_METHOD = "clipstep"


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path) -> Placement:
    """Writes ``path`` with the metadata in the constant method ``clipstep``. What XNNPACK does not take runs in portable kernels.

    Raises:
        ClipstepError: XNNPACK takes nothing at all.
    """
    exported = torch.export.export(graph, program.inputs)
    for node in exported.graph.nodes:  # Each of some forty passes would copy the whole history of each node.
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(key, None)
    edge = to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackPartitioner()],
        constant_methods={METADATA_METHOD: metadata},
        # Without dim-order operators the conversion from uint8 costs 7 instructions an element on ARM64 instead of 48.
        # What comes out is checked by running it; checking the graph between passes takes a tenth of the time.
        compile_config=EdgeCompileConfig(_skip_dim_order=True, _check_ir_validity=False),
    )
    placement = _placement(edge.exported_program().graph_module)
    if not placement.delegated:
        raise ClipstepError("XNNPACK takes nothing of the network", got=f"outside: {', '.join(placement.outside)}", fix="export other targets")
    path.write_bytes(edge.to_executorch().buffer)
    return placement


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
