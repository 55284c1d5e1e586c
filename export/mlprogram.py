"""Evaluates a saved Core ML ML Program, because Core ML itself runs on Apple devices only.

It reads the specification and the weights from the ``.mlpackage`` as written, and computes the main function operation
by operation with torch, rounding after each one to the type that the program declares. It refuses any operation, input
or setting that it does not know: a silent default here would make a broken file pass.
Source of the operations' meanings: coremltools' MIL operation reference, iOS 17.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools import proto
from coremltools.libmilstoragepython import _BlobStorageReader
from coremltools.models.utils import load_spec
from torch import Tensor
from torch.nn import functional as F

from clipstep.runtime.engines import Array
from clipstep.runtime.errors import ClipstepError

MIL = proto.MIL_pb2
DTYPES: dict[int, Any] = {
    MIL.FLOAT32: torch.float32, MIL.FLOAT16: torch.float16, MIL.INT32: torch.int32, MIL.BOOL: torch.bool, MIL.STRING: str,
}  # fmt: skip


class MlProgram:
    """A saved ``.mlpackage`` as an engine; inputs and outputs in the order of its description.

    Given the ``.mlpackage`` in ``exact``, of the same network in float32, a float16 program is run with the weights
    that its own were rounded from, and nothing is rounded: it then has to be as close to the network as float32 is,
    whereas the noise of rounding would hide a small mistake.
    """

    def __init__(self, path: Path, exact: Path | None = None) -> None:
        self._rounding = exact is None
        try:
            spec = load_spec(str(path))
            function = spec.mlProgram.functions["main"]
            block = function.block_specializations[function.opset]
            self._constants = {o.outputs[0].name: _constant(o.attributes["val"], path) for o in block.operations if o.type == "const"}
        except ClipstepError:
            raise
        except Exception as error:  # protobuf and the blob reader raise what they like on damaged files.
            raise ClipstepError(
                f"{path}: cannot be read as an ML Program", got=str(error).splitlines()[0] if str(error) else type(error).__name__
            ) from error
        self._operations = [o for o in block.operations if o.type != "const"]
        self._inputs = [value.name for value in spec.description.input]
        self._outputs = [value.name for value in spec.description.output]
        if not (self._inputs and self._outputs and self._operations):
            raise ClipstepError(f"{path}: cannot be read as an ML Program", got="no inputs, outputs or operations")
        if {value.name for value in function.inputs} != set(self._inputs) or set(block.outputs) != set(self._outputs):
            raise ClipstepError(f"{path}: the description's inputs and outputs are not the program's")
        if exact is not None:
            self._constants = _unrounded(self._constants, MlProgram(exact)._constants, path)

    @torch.no_grad()
    def run(self, inputs: Sequence[Array]) -> list[Array]:
        values: dict[str, Any] = dict(self._constants)
        values.update((name, torch.from_numpy(value)) for name, value in zip(self._inputs, inputs, strict=True))
        for operation in self._operations:
            values[operation.outputs[0].name] = _evaluate(operation, values, self._rounding)
        return [values[name].numpy() for name in self._outputs]

    def close(self) -> None:
        self._operations, self._constants = [], {}


def _unrounded(rounded: dict[str, Any], exact: dict[str, Any], path: Path) -> dict[str, Any]:
    values = dict(rounded)
    for name, value in rounded.items():
        if not isinstance(value, Tensor) or value.dtype != torch.float16:
            continue
        original = exact.get(name.removesuffix("_to_fp16"))
        if not isinstance(original, Tensor) or original.shape != value.shape or not torch.allclose(original.half(), value, rtol=1e-3, atol=1e-6):
            raise ClipstepError(f"{path}: {name} is not the float32 package's weight rounded to float16")
        values[name] = original
    return values


def _evaluate(operation: Any, values: dict[str, Any], rounding: bool) -> Tensor:
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
    reader = _BlobStorageReader(str(package / "Data/com.apple.CoreML" / value.blobFileValue.fileName.removeprefix("@model_path/")))
    shape = [d.constant.size for d in kind.dimensions]
    if kind.dataType == MIL.FLOAT32:
        data = np.array(reader.read_float_data(value.blobFileValue.offset), np.float32)
    elif kind.dataType == MIL.FLOAT16:
        data = np.array(reader.read_fp16_data(value.blobFileValue.offset), np.uint16).view(np.float16)
    else:
        raise ClipstepError("a stored constant of a type this evaluator does not know", got=MIL.DataType.Name(kind.dataType))
    return torch.from_numpy(data).reshape(shape)


def _immediate(value: Any) -> Any:
    """Tensors of numbers as tensors or, of rank 0, as Python values; strings as they are."""
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


def _numbers(values: Tensor) -> list[int]:
    return [int(value) for value in values]


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ClipstepError(f"a setting this evaluator does not know: {what}")


def _wide(value: Tensor) -> Tensor:
    """float16 is computed in float32 and rounded afterwards, as accumulators on devices are at least as wide."""
    return value.float()


def _conv(
    *, x: Tensor, weight: Tensor, strides: Tensor, pad_type: str, pad: Tensor, dilations: Tensor, groups: int, bias: Tensor | None = None
) -> Tensor:
    _expect(pad_type in ("valid", "custom") and x.ndim == 4, f"conv with pad_type {pad_type} and rank {x.ndim}")
    top, bottom, left, right = _numbers(pad) if pad_type == "custom" else [0] * 4
    padded = F.pad(_wide(x), (left, right, top, bottom))
    return F.conv2d(padded, _wide(weight), None if bias is None else _wide(bias), _numbers(strides), 0, _numbers(dilations), groups)


def _max_pool(*, x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor, ceil_mode: bool) -> Tensor:
    _expect(pad_type in ("valid", "custom") and not ceil_mode and x.ndim == 4, f"max_pool with pad_type {pad_type}, ceil_mode {ceil_mode}")
    top, bottom, left, right = _numbers(pad) if pad_type == "custom" else [0] * 4
    return F.max_pool2d(F.pad(_wide(x), (left, right, top, bottom), value=float("-inf")), _numbers(kernel_sizes), _numbers(strides))


def _pad(*, x: Tensor, pad: Tensor, mode: str, constant_val: float) -> Tensor:
    _expect(mode == "constant", f"pad with mode {mode}")
    pairs = _numbers(pad)
    return F.pad(x, [amount for axis in reversed(range(len(pairs) // 2)) for amount in pairs[2 * axis : 2 * axis + 2]], value=float(constant_val))


def _slice(
    *, x: Tensor, begin: Tensor, end: Tensor, end_mask: Tensor | None = None, begin_mask: Tensor | None = None, stride: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    _expect(squeeze_mask is None or not bool(squeeze_mask.any()), "slice_by_index with squeeze_mask")
    for axis, (first, last) in enumerate(zip(_numbers(begin), _numbers(end), strict=True)):
        start = None if begin_mask is not None and begin_mask[axis] else first
        stop = None if end_mask is not None and end_mask[axis] else last
        step = 1 if stride is None else int(stride[axis])
        _expect(step > 0, f"slice_by_index with stride {step}")
        x = x[(slice(None),) * axis + (slice(start, stop, step),)]
    return x


def _concat(*, values: Sequence[Tensor], axis: int, interleave: bool) -> Tensor:
    _expect(not interleave, "concat with interleave")
    return torch.cat(list(values), axis)


def _cast(*, x: Tensor, dtype: str) -> Tensor:
    _expect(dtype in ("fp16", "fp32"), f"cast to {dtype}")
    return x.to(torch.float16 if dtype == "fp16" else torch.float32)


def _reduce_mean(*, x: Tensor, axes: Tensor, keep_dims: bool) -> Tensor:
    return _wide(x).mean(_numbers(axes), keepdim=keep_dims)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda *, x, y: x + y,
    "cast": _cast,
    "concat": _concat,
    "conv": _conv,
    "linear": lambda *, x, weight, bias: F.linear(_wide(x), _wide(weight), _wide(bias)),
    "max_pool": _max_pool,
    "maximum": lambda *, x, y: torch.maximum(x, y),
    "mul": lambda *, x, y: x * y,
    "pad": _pad,
    "reduce_mean": _reduce_mean,
    "relu": lambda *, x: F.relu(x),
    "reshape": lambda *, x, shape: x.reshape(_numbers(shape)),
    "slice_by_index": _slice,
    "transpose": lambda *, x, perm: x.permute(_numbers(perm)),
}
