"""ONNX, for onnxruntime."""

from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import fx, nn

from clipstep.export.choices import OPSETS
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import USUAL, Versions
from clipstep.export.targets.onnx_operations import onnx_model
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import Placement, Requires

METADATA_KEY = "clipstep"
PROFILE = EngineProfile(
    batch_limit=2**19,
    gemm=True,
    gemm_per_tap=False,
    free_permutations=False,
    channel_major=True,
    padded_average_pools=True,
    winograd=True,
    slice_early=True,
)
"""onnxruntime's CPU provider."""
VARIANTS = {
    "channel-major": PROFILE,
    "batched": replace(PROFILE, channel_major=False, batch_limit=2**17),
    "per-frame": replace(PROFILE, channel_major=False, batch_limit=0),
    "no-winograd": replace(PROFILE, winograd=False),
}
"""The engine profiles that ``--tune`` measures. The home network takes 137.9 M ARM64 instructions with ``channel-major``, 160.8 M with ``batched``,
159.5 M with ``per-frame`` and 271.4 M as trained."""
TORCH_OPSETS = range(18, OPSETS[-1] + 1)
ONNXRUNTIMES = (("1.15", 18, 8), ("1.16", 19, 9), ("1.17", 20, 9), ("1.18", 21, 10))
"""Releases of onnxruntime, and the newest operator set and file format that each takes: https://onnxruntime.ai/docs/reference/compatibility.html
and the table of ONNX releases that it points to, tried with those releases (1.15 reads operator set 19, but lacks its Pad). Older releases
than the first were not tried."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, versions: Versions = USUAL) -> Placement:
    """Writes ``path`` with the metadata in ``metadata_props["clipstep"]``. onnxruntime's CPU provider runs every node.

    Raises:
        ClipstepError: the network has an operation that we leave to torch.onnx, which does not write that operator set.
    """
    try:
        model = written(graph, program, versions.opset)
    except Unsupported:
        model = to_onnx(graph, program, versions.opset)
    model.metadata_props.add(key=METADATA_KEY, value=metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Placement(delegated={"CPUExecutionProvider": len(model.graph.node)}, outside=())


def requires(path: Path) -> Requires:
    """What the file says that it is written in, and the onnxruntime that takes that."""
    model = onnx.load(path, load_external_data=False)
    (opset,) = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    lowest = next((release for release, newest, ir in ONNXRUNTIMES if opset <= newest and model.ir_version <= ir), None)
    return Requires(opset=opset, ir_version=model.ir_version, onnxruntime=lowest and f">={lowest}")


def written(graph: nn.Module, program: StepProgram, opset: int) -> onnx.ModelProto:
    if not isinstance(graph, fx.GraphModule):
        raise Unsupported("a network as it was trained")
    return onnx_model(graph, program.input_names, program.output_names, opset)


def to_onnx(step: nn.Module, program: StepProgram, opset: int = OPSETS[-1]) -> onnx.ModelProto:
    """A step module, as it was trained or lowered, as an ONNX model with the contract's names, by torch.onnx.

    Raises:
        ClipstepError: torch.onnx does not write that operator set.
    """
    exported = torch.export.export(step, program.inputs)
    onnx_program = torch.onnx.export(
        exported, input_names=program.input_names, output_names=program.output_names, opset_version=opset, dynamo=True, verbose=False
    )
    assert onnx_program is not None
    model: onnx.ModelProto = onnx_program.model_proto
    got = next(item.version for item in model.opset_import if not item.domain)
    if got != opset:
        raise ClipstepError(
            "the network, or its form, needs torch.onnx, which does not write that operator set",
            got=f"opset {opset}",
            expected=f"{TORCH_OPSETS[0]} to {TORCH_OPSETS[-1]}",
        )
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    for node in model.graph.node:  # Source paths of this machine and this run.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model
