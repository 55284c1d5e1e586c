"""ONNX, for onnxruntime."""

from pathlib import Path

import onnx
import torch
from torch import fx, nn

from clipstep.export.step import StepProgram
from clipstep.export.targets.common import NotTaken
from clipstep.export.targets.onnx_operations import onnx_model
from clipstep.runtime.manifest import Placement

METADATA_KEY = "clipstep"


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path) -> Placement:
    """Writes ``path`` with the metadata in ``metadata_props["clipstep"]``. onnxruntime's CPU provider runs every node."""
    try:
        model = onnx_model(graph, program.input_names, program.output_names) if isinstance(graph, fx.GraphModule) else to_onnx(graph, program)
    except NotTaken:
        model = to_onnx(graph, program)
    model.metadata_props.add(key=METADATA_KEY, value=metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Placement(delegated={"CPUExecutionProvider": len(model.graph.node)}, outside=())


def to_onnx(step: nn.Module, program: StepProgram) -> onnx.ModelProto:
    """A step module, as it was trained or lowered, as an ONNX model with the contract's names, by torch.onnx."""
    exported = torch.export.export(step, program.inputs)
    onnx_program = torch.onnx.export(exported, input_names=program.input_names, output_names=program.output_names, dynamo=True, verbose=False)
    assert onnx_program is not None
    model: onnx.ModelProto = onnx_program.model_proto
    for node in model.graph.node:  # Source paths of this machine and this run.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model
