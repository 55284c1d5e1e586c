"""Evaluates a saved Core ML ML Program, because Core ML itself runs on Apple devices only.

It reads the specification and the weights from the `.mlpackage` as written, and computes the main function operation
by operation with torch, rounding after each one to the type that the program declares. It refuses any operation, input
or setting that it does not know: a silent default here would make a broken file pass.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipstep.export.mil.compressed import PREFIX, Compressed, compressed_of, exact_weights
from clipstep.export.mil.constants import constants_of, unrounded
from clipstep.export.mil.operation import Operation, prepared
from clipstep.runtime.artifact_io import ArtifactIO
from clipstep.runtime.artifact_io import Tensor as Described
from clipstep.runtime.coremltools_files import ARRAY_TYPES, MIL, load_spec
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError, EngineError, error_summary

__all__ = ["MIL", "MlProgram", "load_mlprogram"]

LARGEST = torch.finfo(torch.float16).max


class MlProgram:
    """A saved `.mlpackage` as an engine; inputs and outputs are in the order of its description.

    `exact` is the `.mlpackage` of the same network in float32. Given that, a float16 program is run with the float32 weights that its
    own were rounded or compressed from, and nothing is rounded. It then has to be as close to the network as a float32 program, whereas the noise of
    rounding would hide a small mistake.
    """

    def __init__(self, path: Path, exact: Path | None = None) -> None:
        self._path = path
        spec, block, constants, compressed = _read(path)
        function = spec.mlProgram.functions["main"]
        self._io: ArtifactIO = {"inputs": _features(spec.description.input), "outputs": _features(spec.description.output)}
        self._inputs = [value.name for value in spec.description.input]
        self._outputs = [value.name for value in spec.description.output]
        operations = [o for o in block.operations if o.type != "const" and not o.type.startswith(PREFIX)]
        if not (self._inputs and self._outputs and operations):
            raise ClipstepError(f"{path}: cannot be read as an ML Program", got="no inputs, outputs or operations")
        if {value.name for value in function.inputs} != set(self._inputs) or set(block.outputs) != set(self._outputs):
            raise ClipstepError(f"{path}: the description's inputs and outputs are not the program's")
        if exact is not None:
            originals = _read(exact)[2]
            constants = unrounded(constants, originals, path) | exact_weights(compressed, originals, path)
        else:
            constants |= {name: weight.numbers for name, weight in compressed.items()}
        try:
            found = [prepared(operation, constants, rounding=exact is None) for operation in operations]
        except ClipstepError as error:
            raise EngineError(f"{path}: {error}") from error
        listed = {name for operation in found for _, names in operation.lists for name in names} | set(self._outputs)
        self._constants = {name: _wide(value) for name, value in constants.items() if name in listed}
        self._operations = _forgetful(found, {*self._outputs, *self._constants})

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
        values = self._given(inputs)
        for operation in self._operations:
            operation.run(values)
        found = [values[name] for name in self._outputs]
        if not all(bool(value.isfinite().all()) for value in found):
            self._find_overflow(inputs)
        types = [kind for _, kind, _ in self._io["outputs"]]
        return [(value.half() if kind == "float16" else value).numpy() for value, kind in zip(found, types, strict=True)]

    def _given(self, inputs: Sequence[Array]) -> dict[str, Any]:
        return self._constants | {name: _wide(torch.from_numpy(value)) for name, value in zip(self._inputs, inputs, strict=True)}

    def _find_overflow(self, inputs: Sequence[Array]) -> None:
        """Compute a step again whose outputs are not finite.

        Raises:
            ClipstepError: a value is too large for float16; the message names the operation.
        """
        values = self._given(inputs)
        for operation in self._operations:
            replace(operation, results=tuple(replace(result, rounded=False) for result in operation.results), unused=()).run(values)
            for result in operation.results:
                largest = float(values[result.name].abs().max()) if result.rounded else 0.0
                if LARGEST < largest < float("inf"):
                    raise ClipstepError(f"{operation.type}: a value is too large for float16", got=f"{largest:g}", expected=f"at most {LARGEST:g}")
            for name in operation.unused:
                del values[name]

    def close(self) -> None:
        self._operations, self._constants = [], {}


def load_mlprogram(path: Path, exact: str | None) -> MlProgram:
    """Load the package at `path`. `exact` is a path as text, because the arguments of a call into a worker process are sent as JSON."""
    return MlProgram(path, None if exact is None else Path(exact))


def _read(path: Path) -> tuple[Any, Any, dict[str, Any], dict[str, Compressed]]:
    """Return the specification of a package, the block of its main function, its constants and its compressed weights by name."""
    try:
        spec = load_spec(path)
        function = spec.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        return spec, block, constants_of(block, path), compressed_of(block, path)
    except ClipstepError:
        raise
    except Exception as error:  # protobuf and the blob reader raise many types on damaged files.
        raise ClipstepError(f"{path}: cannot be read as an ML Program", got=error_summary(error)) from error


def _forgetful(operations: Sequence[Operation], kept: set[str]) -> list[Operation]:
    """Return the operations, each with the names of the values that it is the last to use."""
    seen, result = set(kept), list[Operation]()
    for operation in reversed(operations):
        last = {*operation.names, *(value.name for value in operation.results)} - seen
        seen |= last
        result.append(replace(operation, unused=tuple(last)))
    return result[::-1]


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _features(features: Any) -> list[Described]:
    arrays = [(feature.name, feature.type.multiArrayType) for feature in features]
    return [(name, ARRAY_TYPES.Name(array.dataType).lower(), list(array.shape)) for name, array in arrays]
