"""Reads the constants of an ML Program: those in its specification, and those in its file of weights."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipstep.runtime.checks.coreml import check_blob
from clipstep.runtime.coremltools_files import MIL, BlobStorageReader
from clipstep.runtime.errors import ClipstepError

NARROW = (MIL.INT8, MIL.UINT8, MIL.INT16, MIL.UINT16, MIL.UINT32)
"""Integers that are held as int32."""
DTYPES: dict[int, Any] = {
    MIL.FLOAT32: torch.float32,
    MIL.FLOAT16: torch.float16,
    MIL.INT32: torch.int32,
    MIL.BOOL: torch.bool,
    MIL.STRING: str,
    **dict.fromkeys(NARROW, torch.int32),
}
BYTES: dict[int, Any] = {
    MIL.FLOAT16: np.dtype("<f2"),
    MIL.INT8: np.dtype("i1"),
    MIL.UINT8: np.dtype("u1"),
    MIL.INT16: np.dtype("<i2"),
    MIL.UINT16: np.dtype("<u2"),
    MIL.UINT32: np.dtype("<u4"),
}
"""How constants of types without a field of their own are stored in the specification."""
STORED: dict[int, tuple[int, str, Any]] = {
    MIL.FLOAT32: (32, "read_float_data", np.dtype(np.float32)),
    MIL.FLOAT16: (16, "read_fp16_data", np.dtype(np.float16)),
    MIL.INT8: (8, "read_int8_data", np.dtype(np.int8)),
    MIL.UINT8: (8, "read_uint8_data", np.dtype(np.uint8)),
    MIL.UINT6: (6, "read_uint6_data", np.dtype(np.uint8)),
    MIL.UINT4: (4, "read_uint4_data", np.dtype(np.uint8)),
}
"""For each type of the weights file, the bits of a number, the method that reads it, and the type of numpy that holds it."""


def constants_of(block: Any, package: Path) -> dict[str, Any]:
    """Return a program's constants by name."""
    return {o.outputs[0].name: constant(o.attributes["val"], package) for o in block.operations if o.type == "const"}


def unrounded(rounded: dict[str, Any], exact: dict[str, Any], path: Path) -> dict[str, Any]:
    """Replace the float16 constants of a program by the float32 ones that they were rounded from.

    Raises:
        ClipstepError: a constant is not the rounded float32 one.
    """
    values = dict(rounded)
    for name, value in rounded.items():
        original = exact.get(name.removesuffix("_to_fp16").removesuffix("_cast_fp16"))  # coremltools' names of rounded and of folded constants.
        if isinstance(value, float) and isinstance(original, float) and abs(value - original) <= 1e-3 * abs(original) + 1e-6:
            values[name] = original
        if not isinstance(value, Tensor) or value.dtype != torch.float16:
            continue
        if not isinstance(original, Tensor) or original.shape != value.shape or not _is_rounded(value, original):
            raise ClipstepError(f"{path}: {name} is not the float32 package's weight rounded to float16")
        values[name] = original
    return values


def _is_rounded(value: Tensor, original: Tensor) -> bool:
    return torch.allclose(original.half(), value, rtol=1e-3, atol=1e-6, equal_nan=True)


def immediate(value: Any) -> Any:
    """Return a constant of the specification: a Python value (a number, bool or string) if its rank is 0, or else a tensor."""
    kind, tensor = value.type.tensorType, value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if kind.dataType not in DTYPES or field is None:
        raise ClipstepError("an immediate constant of a type this evaluator does not know", got=MIL.DataType.Name(kind.dataType))
    if field == "bytes":
        if kind.dataType not in BYTES:
            raise ClipstepError("an immediate constant of bytes of another type than it has", got=MIL.DataType.Name(kind.dataType))
        items: list[Any] = np.frombuffer(tensor.bytes.values, BYTES[kind.dataType]).tolist()
    else:
        items = list(getattr(tensor, field).values)
    if kind.rank == 0:
        return items[0]
    return torch.tensor(items, dtype=DTYPES[kind.dataType]).reshape([d.constant.size for d in kind.dimensions])


def constant(value: Any, package: Path) -> Any:
    """Return a constant of the specification or of the weights file, as `immediate` does."""
    if value.WhichOneof("value") == "immediateValue":
        return immediate(value)
    kind = value.type.tensorType
    shape = [d.constant.size for d in kind.dimensions]
    if kind.dataType not in STORED:
        raise ClipstepError("a stored constant of a type this evaluator does not know", got=MIL.DataType.Name(kind.dataType))
    bits, method, dtype = STORED[kind.dataType]
    check_blob(package, value.blobFileValue.fileName, value.blobFileValue.offset, math.ceil(math.prod(shape) * bits / 8))
    reader = BlobStorageReader(str(package / "Data/com.apple.CoreML" / value.blobFileValue.fileName.removeprefix("@model_path/")))
    data = np.array(getattr(reader, method)(value.blobFileValue.offset))
    data = data.astype(np.uint16).view(np.float16) if dtype == np.float16 else data.astype(dtype)
    return torch.from_numpy(data).reshape(shape)
