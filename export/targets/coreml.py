"""Core ML, as an ML Program in an ``.mlpackage``."""

from pathlib import Path

import coremltools as ct
import numpy as np
import torch
from torch import fx, nn

from clipstep.export.step import StepProgram
from clipstep.export.targets.common import NotTaken
from clipstep.export.targets.coreml_operations import ml_program
from clipstep.runtime.manifest import Placement

METADATA_KEY = "clipstep"
TARGET = ct.target.iOS17
SHARED_CONSTANTS = ("common::noop_elimination", "common::dead_code_elimination", "common::const_deduplication")
ROUNDED = ("common::add_fp16_cast", "common::remove_redundant_ops", "common::cast_optimization", "common::const_elimination")
"""coremltools' passes that a graph needs which is simple already."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path) -> Placement:
    """Writes ``path`` with the metadata in the user-defined metadata ``clipstep``; frames are float32 holding 0..255.

    Core ML decides on the device which processor runs what, so the placement names the ML Program alone.
    """
    assert isinstance(graph, fx.GraphModule)
    try:
        model = to_ml_program(graph, program, precision)
    except NotTaken:
        model = converted(graph, program, precision)
    model.user_defined_metadata[METADATA_KEY] = metadata
    model.save(str(path))
    function = model.get_spec().mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    return Placement(delegated={"ML Program": sum(operation.type != "const" for operation in operations)}, outside=())


def to_ml_program(graph: fx.GraphModule, program: StepProgram, precision: str) -> ct.models.MLModel:
    """The model of a graph, written operation by operation.

    Raises:
        NotTaken: it has an operation that we do not write.
    """
    passes = (*(ROUNDED if precision == "float16" else ()), *SHARED_CONSTANTS)
    return ct.convert(
        ml_program(graph, program.input_names, program.output_names), minimum_deployment_target=TARGET, compute_precision=_precision(precision),
        pass_pipeline=ct.PassPipeline(list(passes), "clipstep"), skip_model_load=True,
    )  # fmt: skip


def converted(graph: nn.Module, program: StepProgram, precision: str) -> ct.models.MLModel:
    """The model of a step module, by coremltools."""
    exported = torch.export.export(graph, (program.frames.float(), *program.states.values())).run_decompositions({})
    model = ct.convert(
        exported, minimum_deployment_target=TARGET, compute_precision=_precision(precision), skip_model_load=True,
        # Named inputs would be taken in another order than the program's; without a type the outputs would be float16.
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in program.output_names],
    )  # fmt: skip
    spec = model.get_spec()
    for old, new in zip([value.name for value in spec.description.input], program.input_names, strict=True):
        ct.utils.rename_feature(spec, old, new, rename_outputs=False)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _precision(name: str) -> ct.precision:
    return ct.precision.FLOAT16 if name == "float16" else ct.precision.FLOAT32
