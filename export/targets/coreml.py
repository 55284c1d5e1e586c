"""Core ML, as an ML Program in an ``.mlpackage``."""

import math
from pathlib import Path

import coremltools as ct
import numpy as np
import torch
from coremltools.models.utils import load_spec
from torch import fx, nn

from clipstep.export.choices import IOS_DEFAULT
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import USUAL, Versions
from clipstep.export.targets.coreml_operations import ml_program
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.manifest import Placement, Requires

METADATA_KEY = "clipstep"
PROFILE = EngineProfile(
    batch_limit=math.inf,
    gemm=False,
    gemm_per_tap=False,
    free_permutations=False,
    channel_major=False,
    padded_average_pools=True,
    winograd=False,
    slice_early=False,
)
"""Core ML. Nothing was measured: it does not run here. It gets few large operations."""
VARIANTS = {"batched": PROFILE}
MACOS = {15: 12, 16: 13, 17: 14, 18: 15}
"""The macOS of each iOS, which runs the same models."""
SHARED_CONSTANTS = ("common::noop_elimination", "common::dead_code_elimination", "common::const_deduplication")
ROUNDED = ("common::add_fp16_cast", "common::remove_redundant_ops", "common::cast_optimization", "common::const_elimination")
"""The passes of coremltools that a graph still needs which was simplified before."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, versions: Versions = USUAL) -> Placement:
    """Writes ``path`` with the metadata in the user-defined metadata ``clipstep``; frames are float32 holding 0..255.

    Core ML decides on the device which processor runs what, so the placement names the ML Program alone.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        model = to_ml_program(graph, program, precision, versions.ios)
    except Unsupported:
        model = converted(graph, program, precision, versions.ios)
    model.user_defined_metadata[METADATA_KEY] = metadata
    model.save(str(path))
    function = model.get_spec().mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    return Placement(delegated={"ML Program": sum(operation.type != "const" for operation in operations)}, outside=())


def requires(path: Path) -> Requires:
    """What the package says that it is written in, and the systems that take that."""
    number = load_spec(str(path)).specificationVersion
    ios = next(ios for ios in MACOS if _target(ios).value == number)
    return Requires(specification_version=number, ios=f">={ios}", macos=f">={MACOS[ios]}")


def _target(ios: int) -> ct.target:
    return ct.target[f"iOS{ios}"]


def to_ml_program(graph: fx.GraphModule, program: StepProgram, precision: str, ios: int = IOS_DEFAULT) -> ct.models.MLModel:
    """The model of a graph, written operation by operation.

    Raises:
        Unsupported: it has an operation that we do not write.
    """
    passes = (*(ROUNDED if precision == "float16" else ()), *SHARED_CONSTANTS)
    return ct.convert(
        ml_program(graph, program.input_names, program.output_names, _target(ios)),
        minimum_deployment_target=_target(ios),
        compute_precision=_precision(precision),
        pass_pipeline=ct.PassPipeline(list(passes), "clipstep"),
        skip_model_load=True,
    )


def converted(graph: nn.Module, program: StepProgram, precision: str, ios: int = IOS_DEFAULT) -> ct.models.MLModel:
    """The model of a step module, by coremltools."""
    exported = torch.export.export(graph, (program.frames.float(), *program.states.values())).run_decompositions({})
    model = ct.convert(
        exported,
        minimum_deployment_target=_target(ios),
        compute_precision=_precision(precision),
        skip_model_load=True,
        # Named inputs would be taken in another order than the program's; without a type the outputs would be float16.
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in program.output_names],
    )
    spec = model.get_spec()
    for old, new in zip([value.name for value in spec.description.input], program.input_names, strict=True):
        ct.utils.rename_feature(spec, old, new, rename_outputs=False)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _precision(name: str) -> ct.precision:
    return ct.precision.FLOAT16 if name == "float16" else ct.precision.FLOAT32
