"""The targets: one pure function each, with one signature, and the table that names them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import nn

from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.step import StepProgram
from clipstep.export.targets import coreml, executorch, onnx
from clipstep.export.targets.common import Versions
from clipstep.runtime.manifest import Placement, Requires

Writer = Callable[[nn.Module, StepProgram, str, str, Path, Versions], Placement]
"""``(the step in its form, its program, precision, embedded metadata as JSON, path, versions)``: writes the artifact, says where it runs."""


@dataclass(frozen=True)
class Target:
    """A file format: how it is written, which precisions it has, which forms of a graph and types of frames it takes, and the variants of
    its lowered form by name, the default first: the engine profile of each. ``{}`` in ``file`` is the precision. ``platforms``: the
    platforms for which an artifact may differ, and the default variant there. ``requires`` reads from a written file what it needs."""

    write: Writer
    requires: Callable[[Path], Requires]
    file: str
    precisions: tuple[str, ...]
    forms: tuple[str, ...]
    variants: dict[str, EngineProfile]
    input_dtypes: tuple[str, ...]
    tools: tuple[str, ...]
    platforms: dict[str, str]

    def tool_versions(self) -> dict[str, str]:
        return {tool: version(tool) for tool in self.tools}


TARGETS = {
    "onnx": Target(
        onnx.write,
        onnx.requires,
        "step.onnx",
        ("float32",),
        ("lowered", "3d"),
        onnx.VARIANTS,
        ("uint8", "float32"),
        ("torch", "onnx", "onnxscript", "onnxruntime"),
        {"arm64": "channel-major", "x86_64": "channel-major"},
    ),
    "executorch": Target(
        executorch.write,
        executorch.requires,
        "step.pte",
        ("float32",),
        ("lowered",),
        executorch.VARIANTS,
        ("uint8", "float32"),
        ("torch", "executorch"),
        {"arm64": "gemm", "x86_64": "gemm-per-tap"},
    ),
    "coreml": Target(
        coreml.write,
        coreml.requires,
        "step-{}.mlpackage",
        ("float32", "float16"),
        ("lowered",),
        coreml.VARIANTS,
        ("float32",),
        ("torch", "coremltools"),
        {},
    ),
}
