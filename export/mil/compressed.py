"""Reads the weights of an ML Program that are held as integers with scales, or as indices into a palette, and makes their numbers.

The same arithmetic, the other way round, says whether they are what the weights of a float32 package give.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipstep.export.mil.constants import DTYPES, constant
from clipstep.export.mil.settings import expect
from clipstep.runtime.coremltools_files import MIL
from clipstep.runtime.errors import ClipstepError

PREFIX = "constexpr_"
"""How the types of the operations begin that make numbers of compressed constants."""
SUFFIXES = ("_compressed", "_to_fp16")
"""What the names of compressed weights have after those of the float32 package."""
LARGEST = 127


@dataclass(frozen=True)
class Linear:
    """Integers and their scales."""

    integers: Tensor
    scales: Tensor
    """One for each entry of an axis, in the shape in which they multiply the integers."""

    @property
    def numbers(self) -> Tensor:
        return (self.integers.double() * self.scales.double()).to(self.scales.dtype)

    def is_of(self, weight: Tensor) -> bool:
        """Whether the scales are those of the largest number of each channel, and each integer is the nearest one."""
        axes = [axis for axis, size in enumerate(self.scales.shape) if size == 1]
        largest = weight.abs().amax(axes, keepdim=True) if axes else weight.abs()
        scales = (largest / LARGEST).clamp_min(torch.finfo(self.scales.dtype).tiny).to(self.scales.dtype)
        errors = (self.integers.double() * scales.double() - weight).abs()
        within = (errors <= scales.double() / 2 * (1 + 1e-9)).all() and self.integers.abs().max() <= LARGEST
        return torch.equal(scales, self.scales) and bool(within)


@dataclass(frozen=True)
class Palettized:
    """Indices into a palette."""

    indices: Tensor
    palette: Tensor

    @property
    def numbers(self) -> Tensor:
        return self.palette[self.indices]

    def is_of(self, weight: Tensor) -> bool:
        """Whether each number of the weight has the nearest entry, and each entry is the mean of its numbers, rounded; entries without repeat the
        last one."""
        entries, given = self.palette.double(), weight.reshape(-1)
        counts = torch.bincount(self.indices.reshape(-1), minlength=len(entries))
        used = counts > 0
        means = torch.bincount(self.indices.reshape(-1), given, minlength=len(entries))[used] / counts[used]
        half_steps = torch.from_numpy(np.spacing(self.palette.abs().numpy()).astype(np.float64)) / 2
        are_means = (entries[used] - means).abs() <= half_steps[used] + 1e-11 * given.abs().max()
        after = torch.searchsorted(entries[used], given).clamp(max=int(used.sum()) - 1)
        least = torch.minimum((entries[used][after] - given).abs(), (entries[used][(after - 1).clamp(min=0)] - given).abs())
        nearest = (entries[self.indices.reshape(-1)] - given).abs() <= least
        repeated = (entries[~used] == entries[used][-1]).all() and (entries.diff() >= 0).all()
        return bool(are_means.all() and nearest.all() and repeated)


Compressed = Linear | Palettized


def compressed_of(block: Any, package: Path) -> dict[str, Compressed]:
    """Return a program's compressed weights by name.

    Raises:
        ClipstepError: one is compressed in a way that is not known, or is not what the program declares of it.
    """
    return {o.outputs[0].name: _compressed(o, package) for o in block.operations if o.type.startswith(PREFIX)}


def exact_weights(weights: Mapping[str, Compressed], exact: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights of the float32 package in place of those that were compressed from them.

    Raises:
        ClipstepError: one is not what its float32 numbers give.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        numbers, original = weight.numbers, exact.get(_name_in_float32(name))
        if not isinstance(original, Tensor) or original.shape != numbers.shape or not weight.is_of(original.to(numbers.dtype).double()):
            raise ClipstepError(f"{path}: {name} is not what the float32 package's weight gives")
        found[name] = original
    return found


def _name_in_float32(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _compressed(operation: Any, package: Path) -> Compressed:
    given = {name: value for name, value in operation.attributes.items() if name != "name"}
    given |= {name: argument.arguments[0].value for name, argument in operation.inputs.items()}
    read = READERS.get((operation.type, frozenset(given)))
    if read is None:
        raise ClipstepError(f"{operation.type}: a compressed weight that this evaluator does not know", got=", ".join(sorted(given)))
    try:
        found: Compressed = read(**{name: constant(value, package) for name, value in given.items()})
    except ClipstepError as error:
        raise ClipstepError(f"{operation.type}: {error}") from error
    declared = operation.outputs[0].type.tensorType
    shape = tuple(d.constant.size for d in declared.dimensions)
    if tuple(found.numbers.shape) != shape or found.numbers.dtype != DTYPES.get(declared.dataType):
        raise ClipstepError(
            f"{operation.type}: the weight is not of the declared type",
            got=f"{tuple(found.numbers.shape)} {found.numbers.dtype}",
            expected=f"{shape} {MIL.DataType.Name(declared.dataType)}",
        )
    return found


def _affine(quantized_data: Tensor, zero_point: Any, scale: Tensor, axis: int) -> Linear:
    expect(isinstance(zero_point, int) and zero_point == 0, f"a zero point of {zero_point}")
    expect(isinstance(scale, Tensor) and 0 <= axis < quantized_data.ndim, f"axis {axis}")
    return _blockwise(quantized_data, scale.reshape([-1 if place == axis else 1 for place in range(quantized_data.ndim)]))


def _blockwise(data: Tensor, scale: Tensor) -> Linear:
    fits = [size in (1, whole) for size, whole in zip(scale.shape, data.shape, strict=True)]
    expect(data.dtype == torch.int8 and scale.is_floating_point() and all(fits), f"scales {tuple(scale.shape)} for {tuple(data.shape)} {data.dtype}")
    return Linear(data, scale)


def _packed(indices: Tensor, lut: Tensor, shape: Tensor) -> Palettized:
    """Unpack indices that stand in bytes without gaps, the lowest bit first."""
    bits, count = int(math.log2(len(lut))), math.prod(shape.tolist())
    expect(2**bits == len(lut) and len(indices) == math.ceil(count * bits / 8), f"{len(indices)} bytes of {count} indices into {len(lut)} entries")
    rows = np.unpackbits(indices.numpy(), bitorder="little")[: count * bits].reshape(count, bits)
    return Palettized(torch.from_numpy((rows.astype(np.int64) << np.arange(bits)).sum(1)).reshape(shape.tolist()), lut)


def _indexed(indices: Tensor, lut: Tensor) -> Palettized:
    expect(lut.numel() == lut.shape[-2] and int(indices.max()) < lut.numel(), f"a palette of shape {tuple(lut.shape)}")
    return Palettized(indices.long(), lut.reshape(-1))


READERS: Mapping[tuple[str, frozenset[str]], Any] = {
    ("constexpr_affine_dequantize", frozenset(("quantized_data", "zero_point", "scale", "axis"))): _affine,
    ("constexpr_blockwise_shift_scale", frozenset(("data", "scale"))): _blockwise,
    ("constexpr_lut_to_dense", frozenset(("indices", "lut", "shape"))): _packed,
    ("constexpr_lut_to_dense", frozenset(("indices", "lut"))): _indexed,
}
"""For each type of operation and the names of what it is given, the function that reads it."""
