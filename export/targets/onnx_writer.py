"""Writes ONNX files: operator by operator or, where an operator is not written here, by torch.onnx."""

from copy import deepcopy
from operator import getitem
from pathlib import Path

import onnx
import torch
from torch import fx, nn

from clipstep.export.step import StepProgram
from clipstep.export.targets.common import converting, counted_reasons, most_sensitive, names_of_values
from clipstep.export.targets.int8 import quantize
from clipstep.export.targets.onnx import OPSETS
from clipstep.export.targets.onnx_kernels import KERNELS
from clipstep.export.targets.onnx_model import onnx_model
from clipstep.export.targets.onnx_operations import OPERATORS
from clipstep.export.targets.quantization import Narrowed
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.bundle.manifest import Placement, Requires
from clipstep.runtime.errors import ClipstepError

__all__ = ["OPERATORS", "requires", "to_onnx", "write"]

TORCH_OPSETS = range(18, OPSETS[-1] + 1)
"""The operator sets that torch.onnx writes."""
ONNXRUNTIMES = (("1.15", 18, 8), ("1.16", 19, 9), ("1.17", 20, 9), ("1.18", 21, 10))
"""Releases of onnxruntime, and the newest operator set and file format that each takes: https://onnxruntime.ai/docs/reference/compatibility.html
and the table of ONNX releases that it points to, tried with those releases (1.15 reads operator set 19, but lacks its Pad). Older releases
than the first were not tried."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, format_version: int | None = None) -> Placement:
    """Write `path` with the metadata in `metadata_props["clipstep"]`. onnxruntime's CPU provider runs every node.

    `format_version` is ONNX's operator set.

    Raises:
        ClipstepError: the network has an operator that is left to torch.onnx, which does not write that operator set, or the precision is int8.
    """
    opset = format_version or OPSETS[-1]
    narrowed = Narrowed({})
    try:
        if not isinstance(graph, fx.GraphModule):
            raise Unsupported("a network as it was trained")
        if precision == "int8":
            graph = fx.GraphModule(graph, deepcopy(graph.graph))  # Its metadata are written to.
            narrowed = quantize(graph, program, KERNELS)
        model = onnx_model(graph, program.input_names, program.output_names, opset)
    except Unsupported as reason:
        if precision == "int8":
            raise ClipstepError("only what clipstep writes itself can be in int8", got=str(reason), fix="export it in float32") from reason
        with converting("torch.onnx", reason):
            model = to_onnx(graph, program, opset)
            onnx.checker.check_model(model, full_check=True)
    model.metadata_props.add(key=METADATA, value=metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Placement(
        delegated={"CPUExecutionProvider": len(model.graph.node)},
        not_delegated=(),
        in_float32=counted_reasons({node: reason for node, reason in narrowed.in_float32.items() if _gives_float32(node)}),
        sensitive_layers=most_sensitive(narrowed.sensitivities),
        int8_layers=len(narrowed.sensitivities),
    )


def _gives_float32(node: fx.Node) -> bool:
    """Whether an operation gives numbers of float32, in one value or in several, as recurrent layers do."""
    given = node.meta["val"]
    values = given if isinstance(given, tuple | list) else (given,)
    return node.target is not getitem and any(value.dtype == torch.float32 for value in values)


def requires(path: Path, precision: str) -> Requires:
    """Read the operator set and the format's version from the file and find the onnxruntime that takes them."""
    model = onnx.load(path, load_external_data=False)
    (opset,) = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    lowest = next((release for release, newest, ir in ONNXRUNTIMES if opset <= newest and model.ir_version <= ir), None)
    return Requires(opset=opset, ir_version=model.ir_version, onnxruntime=lowest and f">={lowest}")


def to_onnx(step: nn.Module, program: StepProgram, opset: int = OPSETS[-1]) -> onnx.ModelProto:
    """Convert a step module, as trained or lowered, with torch.onnx into a model whose inputs and outputs have the contract's names.

    Raises:
        ClipstepError: torch.onnx does not write that operator set.
    """
    exported = torch.export.export(step, program.inputs)
    onnx_program = torch.onnx.export(exported, opset_version=opset, dynamo=True, verbose=False)
    assert onnx_program is not None
    model: onnx.ModelProto = onnx_program.model_proto
    _rename(model, program.input_names, program.output_names)
    got = next(item.version for item in model.opset_import if not item.domain)
    if got != opset:
        raise ClipstepError(
            "the network, or its form, needs torch.onnx, which does not write that operator set",
            got=f"opset {opset}",
            expected=f"{TORCH_OPSETS[0]} to {TORCH_OPSETS[-1]}",
        )
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    for node in model.graph.node:  # torch.onnx records source paths of this machine in the nodes.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model


def _rename(model: onnx.ModelProto, input_names: list[str], output_names: list[str]) -> None:
    """Give inputs and outputs their names, and values inside that have such a name another one: torch.onnx would give one name to two values."""
    given = {value.name: name for value, name in zip((*model.graph.input, *model.graph.output), (*input_names, *output_names), strict=True)}
    _rename_values(model.graph, names_of_values(given))


def _rename_values(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_values(inner, names)
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
