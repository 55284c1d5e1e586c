"""The targets: one pure function each, with one signature, and the table that names them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from torch import nn

from clipstep.export.lowering.frames import COREML, ONNXRUNTIME, XNNPACK, Style
from clipstep.export.step import StepProgram
from clipstep.export.targets import coreml, executorch, onnx
from clipstep.export.targets.common import Versions
from clipstep.runtime.manifest import Placement, Requires

Writer = Callable[[nn.Module, StepProgram, str, str, Path, Versions], Placement]
"""``(the step in its form, its program, precision, embedded metadata as JSON, path, versions)``: writes the artifact, says where it runs."""


@dataclass(frozen=True)
class Target:
    """A file format: how it is written, which precisions it has, which forms of a graph and types of frames it takes, and the styles of
    its lowered form, the usual one first. ``{}`` in ``file`` is the precision. ``platforms``: those it may differ for, and the usual
    style there. ``requires`` reads in a written file what it needs."""

    write: Writer
    requires: Callable[[Path], Requires]
    file: str
    precisions: tuple[str, ...]
    forms: tuple[str, ...]
    styles: dict[str, Style]
    input_dtypes: tuple[str, ...]
    tools: tuple[str, ...]
    platforms: dict[str, str]

    def tool_versions(self) -> dict[str, str]:
        return {tool: version(tool) for tool in self.tools}


TARGETS = {
    "onnx": Target(
        onnx.write, onnx.requires, "step.onnx", ("float32",), ("lowered", "3d"),
        {
            "planes": ONNXRUNTIME,
            "stacks": replace(ONNXRUNTIME, planes=False, stack_limit=2**17),
            "frames": replace(ONNXRUNTIME, planes=False, stack_limit=0),
            "slow time": replace(ONNXRUNTIME, fast_time=False),
        },
        ("uint8", "float32"), ("torch", "onnx", "onnxscript", "onnxruntime"), {"arm64": "planes", "x86_64": "planes"},
    ),
    "executorch": Target(
        executorch.write, executorch.requires, "step.pte", ("float32",), ("lowered",),
        {
            "products": XNNPACK,
            "sums": replace(XNNPACK, summed_taps=True),
            "convolutions": replace(XNNPACK, products=False),
            "frames": replace(XNNPACK, stack_limit=0),
            "slow time": replace(XNNPACK, fast_time=False),
        },
        ("uint8", "float32"), ("torch", "executorch"), {"arm64": "products", "x86_64": "sums"},
    ),
    "coreml": Target(
        coreml.write, coreml.requires, "step-{}.mlpackage", ("float32", "float16"), ("lowered",), {"stacks": COREML}, ("float32",),
        ("torch", "coremltools"), {},
    ),
}  # fmt: skip
