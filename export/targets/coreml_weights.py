"""Replaces the weights of a Core ML program by integers with scales, or by indices into palettes, and says which ones it leaves as they are.

Core ML makes the numbers of them again when it loads the model, or where it uses them, and computes with floating-point numbers: what becomes smaller
are the file and what is read of it.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from clipstep.export.compat.coremltools_internals import types
from clipstep.export.targets.palettes import palette_of
from clipstep.export.targets.quantization import WEIGHT_LEVELS
from clipstep.runtime.bundle.manifest import CompressedWeights, NotDelegated

SCHEMES: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(("int8", "w8a8"), ("linear", 8)),
    **{f"palette{bits}": ("palette", bits) for bits in (8, 6, 4)},
}
"""For each precision of compressed weights, how they are held and with how many bits."""
BLOCKWISE_IOS = 18
"""The first iOS with the newer operations, which take several scales or palettes and integers of less than 8 bits."""
ENTRY = 64
"""The bytes that describe a constant in the file of weights, and the multiple that its numbers are filled up to."""
SUFFIX = "_compressed"
"""How the names of compressed weights end."""
NOT_A_WEIGHT = "not the weight of a product"
NOT_SMALLER = "it would not become smaller"
NOT_FINITE = "its numbers are not all finite"
TOO_SMALL = "its numbers are too small for scales of float16"
SHARED = "several operations read it in different ways"


@dataclass(frozen=True)
class _Constant:
    """A constant of floating-point numbers in a program."""

    operation: Any
    reader: str
    """The first operation that reads it, and as what: `conv.weight`."""
    axis: int | None
    """The axis of the output channels, if it is the weight of a convolution or of a matrix product."""
    reason: str | None
    """Why it is not compressed, as far as its readers tell."""

    @property
    def value(self) -> Any:
        return self.operation.outputs[0].val


def compress_weights(program: Any, precision: str, ios: int) -> CompressedWeights:
    """Compress the weights of convolutions and matrix products in a program, as the precision says, those that become smaller by it."""
    scheme, bits = SCHEMES[precision]
    (function,) = program.functions.values()
    constants = [_described(operation) for operation in function.operations if _is_floats(operation)]
    reasons = {one.operation.name: one.reason or _refusal(one, scheme, bits, ios) for one in constants}
    compressed = [one for one in constants if reasons[one.operation.name] is None]
    for one in compressed:
        _replace(function, one, _linear(one, ios) if scheme == "linear" else _palettized(one.value, bits, ios))
    kept = Counter((one.reader, reason) for one in constants if (reason := reasons[one.operation.name]) is not None)
    return CompressedWeights.model_validate(
        {
            "scheme": scheme,
            "bits": bits,
            "count": len(compressed),
            "share": round(sum(one.value.size for one in compressed) / max(1, sum(one.value.size for one in constants)), 4),
            "as_floats": [NotDelegated(operator=reader, count=count, reason=reason) for (reader, reason), count in kept.items()],
        }
    )


def _is_floats(operation: Any) -> bool:
    """Whether an operation is a constant tensor of floating-point numbers, and not a setting."""
    return bool(operation.op_type == "const" and operation.outputs[0].rank and types.is_float(operation.outputs[0].dtype))


def _described(operation: Any) -> _Constant:
    (value,) = operation.outputs
    readers = [(reader, name) for reader in value.child_ops for name, given in reader.inputs.items() if given is value]
    axes = {_channels(reader, name) for reader, name in readers}
    first = f"{readers[0][0].op_type}.{readers[0][1]}" if readers else "output"
    if axes <= {None}:
        return _Constant(operation, first, None, NOT_A_WEIGHT)
    return _Constant(operation, first, next(iter(axes)), None if len(axes) == 1 else SHARED)


def _channels(reader: Any, name: str) -> int | None:
    """Return the axis of a weight with the output channels of the operation that reads it; None for what is not a weight."""
    kind, rank = reader.op_type, int(reader.inputs[name].rank)
    if name == "weight" and kind in ("conv", "linear", "conv_transpose"):
        return int(kind == "conv_transpose")
    if kind == "matmul" and rank >= 2:
        crossed = bool(reader.inputs[f"transpose_{name}"].val)
        return rank - 1 if crossed == (name == "x") else rank - 2
    return None


def _refusal(constant: _Constant, scheme: str, bits: int, ios: int) -> str | None:
    """Return why a weight is not compressed; None if it is."""
    value, each = constant.value, constant.value.dtype.itemsize
    beside = value.shape[constant.axis or 0] if scheme == "linear" else 2**bits
    if _stored(math.ceil(value.size * bits / 8)) + _stored(beside * each) >= _stored(value.size * each):
        return NOT_SMALLER
    if not np.isfinite(value).all():
        return NOT_FINITE
    return TOO_SMALL if scheme == "linear" and 0 < float(abs(value).max()) < WEIGHT_LEVELS * np.finfo(value.dtype).tiny else None


def _stored(size: int) -> int:
    return ENTRY + -(-size // ENTRY) * ENTRY


def _linear(constant: _Constant, ios: int) -> Any:
    """Write a weight as integers of -127 to 127, and a scale for each output channel, which is a normal number of its type."""
    value, axis = constant.value, constant.axis or 0
    others = tuple(place for place in range(value.ndim) if place != axis)
    largest = abs(value.astype(np.float64)).max(axis=others, keepdims=True)
    scales = np.maximum(largest / WEIGHT_LEVELS, np.finfo(value.dtype).tiny).astype(value.dtype)
    integers = np.clip(np.round(value / scales.astype(np.float64)), -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8)
    if ios >= BLOCKWISE_IOS:
        return lambda **more: mb.constexpr_blockwise_shift_scale(data=integers, scale=scales, **more)
    return lambda **more: mb.constexpr_affine_dequantize(
        quantized_data=integers, zero_point=np.int8(0), scale=scales.reshape(-1), axis=np.int32(axis), **more
    )


def _palettized(value: Any, bits: int, ios: int) -> Any:
    """Write a weight as indices of its numbers in one palette."""
    palette, indices = palette_of(value, 2**bits)
    if ios >= BLOCKWISE_IOS:
        narrow = types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}"))
        whole = palette.reshape(*[1] * value.ndim, -1, 1)
        return lambda **more: mb.constexpr_lut_to_dense(indices=indices.astype(narrow), lut=whole, **more)
    packed, shape = packed_bits(indices.reshape(-1), bits), np.array(value.shape, np.uint32)
    return lambda **more: mb.constexpr_lut_to_dense(indices=packed, lut=palette, shape=shape, **more)


def packed_bits(integers: Any, bits: int) -> Any:
    """Return integers of so many bits as bytes, without gaps, the lowest bit first."""
    return np.packbits(((integers[:, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(-1), bitorder="little")


def _replace(function: Any, constant: _Constant, write: Any) -> None:
    """Let whatever reads a constant read what `write` writes in its place."""
    operation = constant.operation
    with function:
        value = write(before_op=operation, name=f"{operation.name}{SUFFIX}")
    function.replace_uses_of_var_after_op(anchor_op=value.op, old_var=operation.outputs[0], new_var=value)
    function.remove_ops([operation])
