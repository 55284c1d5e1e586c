"""The targets: one pure function each, with one signature, and the table that names them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import nn

from clipstep.export.lowering.frames import COREML, ONNXRUNTIME, XNNPACK, Style
from clipstep.export.step import StepProgram
from clipstep.export.targets import coreml, executorch, onnx
from clipstep.runtime.manifest import Placement

Writer = Callable[[nn.Module, StepProgram, str, str, Path], Placement]
"""``(the step in its form, its program, precision, embedded metadata as JSON, path)``: writes the artifact, says where it runs."""


@dataclass(frozen=True)
class Target:
    """A file format: how it is written, which precisions it has, which forms of a graph and types of frames it takes, the usual
    one first, and the style of its lowered form. ``{}`` in ``file`` is the precision."""

    write: Writer
    file: str
    precisions: tuple[str, ...]
    forms: tuple[str, ...]
    style: Style
    input_dtypes: tuple[str, ...]
    tools: tuple[str, ...]

    def tool_versions(self) -> dict[str, str]:
        return {tool: version(tool) for tool in self.tools}


TARGETS = {
    "onnx": Target(
        onnx.write, "step.onnx", ("float32",), ("lowered", "3d"), ONNXRUNTIME, ("uint8", "float32"), ("torch", "onnx", "onnxscript", "onnxruntime")
    ),
    "executorch": Target(executorch.write, "step.pte", ("float32",), ("lowered",), XNNPACK, ("uint8", "float32"), ("torch", "executorch")),
    "coreml": Target(coreml.write, "step-{}.mlpackage", ("float32", "float16"), ("lowered",), COREML, ("float32",), ("torch", "coremltools")),
}
