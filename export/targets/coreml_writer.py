"""Writes Core ML packages: an ML Program, operator by operator or, where an operator is not written here, by coremltools' converter."""

from collections.abc import Container
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.models.utils import load_spec
from torch import fx, nn

from clipstep.export.compat.coremltools_internals import FP16ComputePrecision
from clipstep.export.mil.compressed import PREFIX
from clipstep.export.source_lines import describe_error
from clipstep.export.step import StepProgram
from clipstep.export.targets.accumulation import ADDS_UP, SUMS
from clipstep.export.targets.common import converting, counted_reasons, most_sensitive, names_of_values
from clipstep.export.targets.coreml import DEFAULT_IOS, MACOS
from clipstep.export.targets.coreml_operations import OPERATORS, ml_program
from clipstep.export.targets.coreml_weights import SCHEMES, compress_weights
from clipstep.export.targets.float16 import PRODUCTS, SMALLEST, TOO_SMALL, beyond_float16
from clipstep.export.targets.int8 import Kernels, operands_of, quantize
from clipstep.export.targets.quantization import COMPUTED_IN, QUANTIZATION, Narrowed
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.bundle.manifest import CompressedWeights, Placement, Requires
from clipstep.runtime.errors import ClipstepError

__all__ = ["OPERATORS", "requires", "to_ml_program", "write"]

SHARED_CONSTANTS = ("common::noop_elimination", "common::dead_code_elimination", "common::const_deduplication")
FOLDED = "common::const_elimination"
ROUNDED = ("common::add_fp16_cast", "common::remove_redundant_ops", "common::cast_optimization")
"""The passes of coremltools that a graph needs after ours, in the order `ROUNDED`, for float16, `FOLDED` and `SHARED_CONSTANTS`."""
CASTS = ("_to_fp16", "_to_fp32")
"""How the names end that coremltools gives to what it rounds for float16."""

MIL_PRODUCTS = ("conv", "conv_transpose", "linear", "matmul")
"""The operations of ML Programs that are convolutions and matrix products."""
NOT_A_PRODUCT = "only products are of integers"
PRODUCTS_ALONE = Kernels("coreml", limited=False, slower=lambda _, nodes: {node: NOT_A_PRODUCT for node in nodes if node.target in SUMS})
"""What is rounded to integers in w8a8: the operands of convolutions and matrix products of constant weights."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path, format_version: int | None = None) -> Placement:
    """Write `path` with the metadata in the user-defined metadata `clipstep`; frames are float32 holding 0..255.

    `format_version` is the lowest iOS that the model runs on. Core ML decides on the device which processor runs what, so the placement
    names the ML Program alone.
    """
    assert isinstance(graph, fx.GraphModule)
    ios = format_version or DEFAULT_IOS
    narrowed = Narrowed({})
    if precision == "w8a8":
        graph = fx.GraphModule(graph, deepcopy(graph.graph))  # Its metadata are written to.
        narrowed = _of_integers(graph, program)
    wide = {} if precision == "float32" else beyond_float16(graph, program)
    compressed: list[CompressedWeights] = []
    try:
        model = to_ml_program(graph, program, precision, ios, wide, compressed)
    except Unsupported as reason:
        if precision == "w8a8":
            raise ClipstepError("only what clipstep writes itself can be in w8a8", got=str(reason), fix="export it in int8 or float16") from reason
        wide = {node: why for node, why in wide.items() if why == ADDS_UP}
        with converting("coremltools", reason):
            model = converted(graph, program, precision, ios, compressed, products_alone=bool(wide))
    try:
        model.user_defined_metadata[METADATA] = metadata
        model.save(str(path))
        function = model.get_spec().mlProgram.functions["main"]
    except OSError:
        raise
    except Exception as error:  # coremltools raises many types.
        raise ClipstepError("coremltools cannot save the network", got=describe_error(error)) from error
    operations = function.block_specializations[function.opset].operations
    return Placement(
        delegated={"ML Program": sum(operation.type != "const" and not operation.type.startswith(PREFIX) for operation in operations)},
        not_delegated=(),
        in_float32=counted_reasons(wide),
        in_float16=counted_reasons({node: reason for node, reason in narrowed.in_float16.items() if node not in wide}),
        sensitive_layers=most_sensitive(narrowed.sensitivities),
        int8_layers=len(narrowed.sensitivities),
        compressed_weights=compressed[0] if compressed else None,
    )


def _of_integers(graph: fx.GraphModule, program: StepProgram) -> Narrowed:
    """Mark the products in w8a8 whose operands are rounded to integers; the others are in float16, each with the reason."""
    narrowed = quantize(graph, replace(program, correct_biases=False), PRODUCTS_ALONE)
    products = [node for node in graph.graph.nodes if node.target in PRODUCTS]
    marked = [node for node in products if node.meta.get(COMPUTED_IN) == torch.int8]
    small = [node for node in marked if any(one.meta[QUANTIZATION].scale < SMALLEST for one in operands_of(node))]
    for node in small:
        del node.meta[COMPUTED_IN]
    reasons = {node: narrowed.in_float32[node] for node in products if node not in marked} | dict.fromkeys(small, TOO_SMALL)
    return Narrowed({}, in_float16=reasons, sensitivities=narrowed.sensitivities)


def requires(path: Path, precision: str) -> Requires:
    """Read the specification's version from the package and find the systems that take it."""
    number = load_spec(str(path)).specificationVersion
    ios = next(ios for ios in MACOS if _target(ios).value == number)
    return Requires(specification_version=number, ios=f">={ios}", macos=f">={MACOS[ios]}")


def _target(ios: int) -> ct.target:
    return ct.target[f"iOS{ios}"]


def to_ml_program(
    graph: fx.GraphModule,
    program: StepProgram,
    precision: str,
    ios: int = DEFAULT_IOS,
    in_float32: Container[fx.Node | None] = (),
    compressed: list[CompressedWeights] | None = None,
) -> ct.models.MLModel:
    """Write the model of a graph operator by operator. The nodes `in_float32` stay in float32 in a model that computes in float16.

    What became of the weights is added to `compressed`, if the precision is one of compressed weights.

    Raises:
        Unsupported: it has an operator that is not written here, or that coremltools does not take.
    """
    passes = (*(() if precision == "float32" else ROUNDED), FOLDED, *SHARED_CONSTANTS)
    origins: dict[str, fx.Node] = {}
    names = [*program.input_names, *program.output_names]
    clash = any(name.endswith(CASTS) for name in names)
    stand_ins = [f"value_{place}" for place in range(len(names))] if clash else names
    inputs = len(program.input_names)
    written = ml_program(graph, stand_ins[:inputs], stand_ins[inputs:], _target(ios), origins)
    compute_precision: Any = _precision(precision)
    if precision != "float32" and in_float32:
        compute_precision = FP16ComputePrecision(op_selector=lambda operation: origins.get(operation.name) not in in_float32)
    try:
        with np.errstate(over="ignore"):  # coremltools compares the ranges of types in a narrower one.
            model = _model(
                written, precision, ios, compressed, compute_precision=compute_precision, pass_pipeline=ct.PassPipeline(list(passes), "clipstep")
            )
    except Exception as error:  # coremltools raises many types.
        raise Unsupported(f"coremltools refuses the program, {describe_error(error)}") from error
    return _named(model, program) if clash else model


def converted(
    graph: nn.Module,
    program: StepProgram,
    precision: str,
    ios: int = DEFAULT_IOS,
    compressed: list[CompressedWeights] | None = None,
    *,
    products_alone: bool = False,
) -> ct.models.MLModel:
    """Convert a step module with coremltools, as `to_ml_program` writes it. With `products_alone`, a model that computes in float16 does so in
    convolutions and matrix products alone."""
    compute_precision: Any = _precision(precision)
    if precision != "float32" and products_alone:
        compute_precision = FP16ComputePrecision(op_selector=lambda operation: operation.op_type in MIL_PRODUCTS)
    exported = torch.export.export(graph, (program.frames.float(), *program.states.values())).run_decompositions({})
    model = _model(
        exported,
        precision,
        ios,
        compressed,
        compute_precision=compute_precision,
        # Inputs are not named here, because coremltools would reorder them. Without a type the outputs would be float16.
        outputs=[ct.TensorType(name=f"value_{place}", dtype=np.float32) for place in range(len(program.output_names))],
    )
    return _named(model, program)


def _model(source: Any, precision: str, ios: int, compressed: list[CompressedWeights] | None, **settings: Any) -> ct.models.MLModel:
    """Convert a program with coremltools, and compress its weights if the precision says so."""
    if precision in SCHEMES:
        source = ct.convert(source, convert_to="milinternal", minimum_deployment_target=_target(ios), **settings)
        weights = compress_weights(source, precision, ios)
        if compressed is not None:
            compressed.append(weights)
        settings = {"pass_pipeline": ct.PassPipeline.EMPTY, "compute_precision": ct.precision.FLOAT32}
    return ct.convert(source, convert_to="mlprogram", minimum_deployment_target=_target(ios), skip_model_load=True, **settings)


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
    return ct.precision.FLOAT32 if name == "float32" else ct.precision.FLOAT16
