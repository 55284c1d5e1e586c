"""Writes Core ML packages: an ML Program, operator by operator or, where an operator is not written here, by coremltools' converter."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.models.utils import load_spec
from torch import Tensor, fx, nn

from clipstep.export.compat.coremltools_internals import FP16ComputePrecision
from clipstep.export.source_lines import describe_error
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import converting
from clipstep.export.targets.coreml import DEFAULT_IOS, MACOS
from clipstep.export.targets.coreml_operations import OPERATORS, ml_program
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.bundle.manifest import Placement, Requires
from clipstep.runtime.errors import ClipstepError

__all__ = ["OPERATORS", "requires", "to_ml_program", "write"]

SHARED_CONSTANTS = ("common::noop_elimination", "common::dead_code_elimination", "common::const_deduplication")
FOLDED = "common::const_elimination"
ROUNDED = ("common::add_fp16_cast", "common::remove_redundant_ops", "common::cast_optimization")
"""The passes of coremltools that a graph needs after ours, in the order `ROUNDED`, for float16 alone, `FOLDED` and `SHARED_CONSTANTS`."""
LARGEST = torch.finfo(torch.float16).max


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, format_version: int | None = None) -> Placement:
    """Write `path` with the metadata in the user-defined metadata `clipstep`; frames are float32 holding 0..255.

    `format_version` is the lowest iOS that the model runs on. Core ML decides on the device which processor runs what, so the placement
    names the ML Program alone.
    """
    assert isinstance(graph, fx.GraphModule)
    ios = format_version or DEFAULT_IOS
    try:
        model = to_ml_program(graph, program, precision, ios)
    except Unsupported as reason:
        with converting("coremltools", reason):
            model = converted(graph, program, precision, ios)
    try:
        model.user_defined_metadata[METADATA] = metadata
        model.save(str(path))
        function = model.get_spec().mlProgram.functions["main"]
    except OSError:
        raise
    except Exception as error:  # coremltools raises many types.
        raise ClipstepError("coremltools cannot save the network", got=describe_error(error)) from error
    operations = function.block_specializations[function.opset].operations
    return Placement(delegated={"ML Program": sum(operation.type != "const" for operation in operations)}, not_delegated=())


def requires(path: Path) -> Requires:
    """Read the specification's version from the package and find the systems that take it."""
    number = load_spec(str(path)).specificationVersion
    ios = next(ios for ios in MACOS if _target(ios).value == number)
    return Requires(specification_version=number, ios=f">={ios}", macos=f">={MACOS[ios]}")


def _target(ios: int) -> ct.target:
    return ct.target[f"iOS{ios}"]


def to_ml_program(graph: fx.GraphModule, program: StepProgram, precision: str, ios: int = DEFAULT_IOS) -> ct.models.MLModel:
    """Write the model of a graph operator by operator. Operations on values that are too large for float16 stay in float32.

    Raises:
        Unsupported: it has an operator that is not written here, or that coremltools does not take.
    """
    passes = (*(ROUNDED if precision == "float16" else ()), FOLDED, *SHARED_CONSTANTS)
    origins: dict[str, fx.Node] = {}
    written = ml_program(graph, program.input_names, program.output_names, _target(ios), origins)
    compute_precision: Any = _precision(precision)
    if precision == "float16" and (wide := nodes_beyond_float16(graph, program)):
        compute_precision = FP16ComputePrecision(op_selector=lambda operation: origins.get(operation.name) not in wide)
    try:
        with np.errstate(over="ignore"):  # coremltools compares the ranges of types in a narrower one.
            return ct.convert(
                written,
                minimum_deployment_target=_target(ios),
                compute_precision=compute_precision,
                pass_pipeline=ct.PassPipeline(list(passes), "clipstep"),
                skip_model_load=True,
            )
    except Exception as error:  # coremltools raises many types.
        raise Unsupported(f"coremltools refuses the program, {describe_error(error)}") from error


def nodes_beyond_float16(graph: fx.GraphModule, program: StepProgram) -> set[fx.Node]:
    """Return the nodes that read or compute values beyond half of float16's range, in a step on the program's example frames."""
    found: set[fx.Node] = set()

    class Ranges(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                largest = float(torch.where(value.isfinite(), value, torch.zeros_like(value)).abs().max())
                if largest > LARGEST / 2:
                    found.update((n, *n.users))
            return value

    with torch.no_grad():
        Ranges(graph).run(program.frames.float(), *program.states.values())
    return found


def converted(graph: nn.Module, program: StepProgram, precision: str, ios: int = DEFAULT_IOS) -> ct.models.MLModel:
    """Convert a step module with coremltools."""
    exported = torch.export.export(graph, (program.frames.float(), *program.states.values())).run_decompositions({})
    model = ct.convert(
        exported,
        minimum_deployment_target=_target(ios),
        compute_precision=_precision(precision),
        skip_model_load=True,
        # Inputs are not named here, because coremltools would reorder them. Without a type the outputs would be float16.
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in program.output_names],
    )
    spec = model.get_spec()
    for old, new in zip([value.name for value in spec.description.input], program.input_names, strict=True):
        ct.utils.rename_feature(spec, old, new, rename_outputs=False)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _precision(name: str) -> ct.precision:
    return ct.precision.FLOAT16 if name == "float16" else ct.precision.FLOAT32
