"""Evaluates a saved Core ML ML Program, because Core ML itself runs on Apple devices only.

It reads the specification and the weights from the `.mlpackage` as written, and computes the main function operation
by operation with torch, rounding after each one to the type that the program declares. It refuses any operation, input
or setting that it does not know: a silent default here would make a broken file pass.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.models.utils import load_spec
from torch import Tensor

from clipstep.export.compat.coremltools_internals import ARRAY_TYPES, MIL, BlobStorageReader
from clipstep.export.mil_operations import OPERATIONS
from clipstep.runtime.artifact_io import ArtifactIO
from clipstep.runtime.artifact_io import Tensor as Described
from clipstep.runtime.checks.coreml import check_blob
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError, EngineError, error_summary

DTYPES: dict[int, Any] = {
    MIL.FLOAT32: torch.float32,
    MIL.FLOAT16: torch.float16,
    MIL.INT32: torch.int32,
    MIL.BOOL: torch.bool,
    MIL.STRING: str,
}
STORED = {MIL.FLOAT32: 4, MIL.FLOAT16: 2}
"""Bytes of a number in the weights file, by its type."""


class MlProgram:
    """A saved `.mlpackage` as an engine; inputs and outputs are in the order of its description.

    `exact` is the `.mlpackage` of the same network in float32. Given that, a float16 program is run with the float32 weights that its
    own were rounded from, and nothing is rounded. It then has to be as close to the network as a float32 program, whereas the noise of
    rounding would hide a small mistake.
    """

    def __init__(self, path: Path, exact: Path | None = None) -> None:
        self._path, self._rounding = path, exact is None
        try:
            spec = load_spec(str(path))
            function = spec.mlProgram.functions["main"]
            block = function.block_specializations[function.opset]
            self._constants = {o.outputs[0].name: _constant(o.attributes["val"], path) for o in block.operations if o.type == "const"}
        except ClipstepError:
            raise
        except Exception as error:  # protobuf and the blob reader raise many types on damaged files.
            raise ClipstepError(f"{path}: cannot be read as an ML Program", got=error_summary(error)) from error
        self._io: ArtifactIO = {"inputs": _features(spec.description.input), "outputs": _features(spec.description.output)}
        self._operations = [o for o in block.operations if o.type != "const"]
        self._inputs = [value.name for value in spec.description.input]
        self._outputs = [value.name for value in spec.description.output]
        if not (self._inputs and self._outputs and self._operations):
            raise ClipstepError(f"{path}: cannot be read as an ML Program", got="no inputs, outputs or operations")
        if {value.name for value in function.inputs} != set(self._inputs) or set(block.outputs) != set(self._outputs):
            raise ClipstepError(f"{path}: the description's inputs and outputs are not the program's")
        if exact is not None:
            self._constants = _unrounded(self._constants, MlProgram(exact)._constants, path)

    def describe_io(self) -> ArtifactIO:
        return self._io

    @torch.no_grad()
    def run(self, inputs: Sequence[Array]) -> list[Array]:
        try:
            return self._run(inputs)
        except ClipstepError as error:
            raise EngineError(f"{self._path}: {error}") from error
        except Exception as error:  # torch raises a dozen types on shapes and types that do not fit.
            raise EngineError(f"{self._path}: our evaluator of ML Programs failed in a step", got=error_summary(error)) from error

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        values: dict[str, Any] = dict(self._constants)
        values.update((name, torch.from_numpy(value)) for name, value in zip(self._inputs, inputs, strict=True))
        for operation in self._operations:
            values[operation.outputs[0].name] = _evaluate(operation, values, self._rounding)
        return [values[name].numpy() for name in self._outputs]

    def close(self) -> None:
        self._operations, self._constants = [], {}


def load_mlprogram(path: Path, exact: str | None) -> MlProgram:
    """Load the package at `path`. `exact` is a path as text, because the arguments of a call into a worker process are sent as JSON."""
    return MlProgram(path, None if exact is None else Path(exact))


def _features(features: Any) -> list[Described]:
    arrays = [(feature.name, feature.type.multiArrayType) for feature in features]
    return [(name, ARRAY_TYPES.Name(array.dataType).lower(), list(array.shape)) for name, array in arrays]


def _unrounded(rounded: dict[str, Any], exact: dict[str, Any], path: Path) -> dict[str, Any]:
    """Replace the float16 constants of a program by the float32 ones that they were rounded from.

    Raises:
        ClipstepError: a constant is not the rounded float32 one.
    """
    values = dict(rounded)
    for name, value in rounded.items():
        original = exact.get(name.removesuffix("_to_fp16"))
        if isinstance(value, float) and isinstance(original, float) and abs(value - original) <= 1e-3 * abs(original):
            values[name] = original
        if not isinstance(value, Tensor) or value.dtype != torch.float16:
            continue
        if not isinstance(original, Tensor) or original.shape != value.shape or not torch.allclose(original.half(), value, rtol=1e-3, atol=1e-6):
            raise ClipstepError(f"{path}: {name} is not the float32 package's weight rounded to float16")
        values[name] = original
    return values


def _evaluate(operation: Any, values: dict[str, Any], rounding: bool) -> Tensor:
    """Compute one operation and check that its result has the declared shape.

    Raises:
        ClipstepError: an operation, input, setting or type that this evaluator does not know.
    """
    known = OPERATIONS.get(operation.type)
    if known is None:
        raise ClipstepError(f"unknown ML Program operation {operation.type}", expected=f"one of {', '.join(OPERATIONS)}")
    arguments = {name: _argument(argument, values) for name, argument in operation.inputs.items()}
    if len(operation.outputs) != 1 or operation.blocks or set(operation.attributes) - {"name"}:
        raise ClipstepError(f"{operation.type}: more outputs, blocks or attributes than this evaluator knows")
    try:
        result = arguments["x"] if operation.type == "cast" and not rounding else known(**arguments)
    except TypeError as error:
        raise ClipstepError(f"{operation.type}: inputs this evaluator does not know", got=", ".join(arguments)) from error
    kind = operation.outputs[0].type.tensorType
    shape = tuple(d.constant.size for d in kind.dimensions)
    if tuple(result.shape) != shape:
        raise ClipstepError(f"{operation.type}: the result has another shape than declared", got=tuple(result.shape), expected=shape)
    if kind.dataType not in DTYPES:
        raise ClipstepError(f"{operation.type}: a result of a type this evaluator does not know", got=MIL.DataType.Name(kind.dataType))
    declared = DTYPES[kind.dataType]
    return result.to(torch.float32 if declared == torch.float16 and not rounding else declared)


def _argument(argument: Any, values: dict[str, Any]) -> Any:
    found = [values[a.name] if a.WhichOneof("binding") == "name" else _immediate(a.value) for a in argument.arguments]
    return found[0] if len(found) == 1 else found


def _constant(value: Any, package: Path) -> Any:
    if value.WhichOneof("value") == "immediateValue":
        return _immediate(value)
    kind = value.type.tensorType
    shape = [d.constant.size for d in kind.dimensions]
    if kind.dataType in STORED:
        check_blob(package, value.blobFileValue.fileName, value.blobFileValue.offset, math.prod(shape) * STORED[kind.dataType])
    reader = BlobStorageReader(str(package / "Data/com.apple.CoreML" / value.blobFileValue.fileName.removeprefix("@model_path/")))
    if kind.dataType == MIL.FLOAT32:
        data = np.array(reader.read_float_data(value.blobFileValue.offset), np.float32)
    elif kind.dataType == MIL.FLOAT16:
        data = np.array(reader.read_fp16_data(value.blobFileValue.offset), np.uint16).view(np.float16)
    else:
        raise ClipstepError("a stored constant of a type this evaluator does not know", got=MIL.DataType.Name(kind.dataType))
    return torch.from_numpy(data).reshape(shape)


def _immediate(value: Any) -> Any:
    """Return the constant as a Python value (a number, bool or string) if its rank is 0, or else as a tensor."""
    kind, tensor = value.type.tensorType, value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if kind.dataType not in DTYPES or field is None:
        raise ClipstepError("an immediate constant of a type this evaluator does not know", got=MIL.DataType.Name(kind.dataType))
    if field == "bytes":
        if kind.dataType != MIL.FLOAT16:
            raise ClipstepError("an immediate constant of bytes that is not float16")
        items: list[Any] = np.frombuffer(tensor.bytes.values, np.float16).tolist()
    else:
        items = list(getattr(tensor, field).values)
    if kind.rank == 0:
        return items[0]
    shape = [d.constant.size for d in kind.dimensions]
    return torch.tensor(items, dtype=DTYPES[kind.dataType]).reshape(shape)
