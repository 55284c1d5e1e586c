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
from clipstep.export.targets.common import converting, names_of_values
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
CASTS = ("_to_fp16", "_to_fp32")
"""How the names end that coremltools gives to what it rounds for float16."""
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
    names = [*program.input_names, *program.output_names]
    clash = any(name.endswith(CASTS) for name in names)
    stand_ins = [f"value_{place}" for place in range(len(names))] if clash else names
    inputs = len(program.input_names)
    written = ml_program(graph, stand_ins[:inputs], stand_ins[inputs:], _target(ios), origins)
    compute_precision: Any = _precision(precision)
    if precision == "float16" and (wide := nodes_beyond_float16(graph, program)):
        compute_precision = FP16ComputePrecision(op_selector=lambda operation: origins.get(operation.name) not in wide)
    try:
        with np.errstate(over="ignore"):  # coremltools compares the ranges of types in a narrower one.
            model = ct.convert(
                written,
                minimum_deployment_target=_target(ios),
                compute_precision=compute_precision,
                pass_pipeline=ct.PassPipeline(list(passes), "clipstep"),
                skip_model_load=True,
            )
    except Exception as error:  # coremltools raises many types.
        raise Unsupported(f"coremltools refuses the program, {describe_error(error)}") from error
    return _named(model, program) if clash else model


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
        outputs=[ct.TensorType(name=f"value_{place}", dtype=np.float32) for place in range(len(program.output_names))],
    )
    return _named(model, program)


def _named(model: ct.models.MLModel, program: StepProgram) -> ct.models.MLModel:
    """Return a model with the program's names for inputs and outputs; values inside that have such a name get another one."""
    spec = model.get_spec()
    features = (*spec.description.input, *spec.description.output)
    given = {feature.name: name for feature, name in zip(features, (*program.input_names, *program.output_names), strict=True)}
    names = names_of_values(given)
    for feature in features:
        feature.name = given[feature.name]
    for function in spec.mlProgram.functions.values():
        for value in function.inputs:
            value.name = names.get(value.name, value.name)
        for block in function.block_specializations.values():
            _rename(block, names)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def _rename(block: Any, names: dict[str, str]) -> None:
    block.outputs[:] = [names.get(name, name) for name in block.outputs]
    for value in block.inputs:
        value.name = names.get(value.name, value.name)
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.HasField("name"):
                    binding.name = names.get(binding.name, binding.name)
        for value in operation.outputs:
            value.name = names.get(value.name, value.name)
        for inner in operation.blocks:
            _rename(inner, names)


def _precision(name: str) -> ct.precision:
    return ct.precision.FLOAT16 if name == "float16" else ct.precision.FLOAT32
