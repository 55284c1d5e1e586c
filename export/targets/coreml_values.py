"""Values of an ML Program while it is written: constants, conversions between types, and broadcasting.

Core ML has no other numbers than these: floating-point values are float32, integers int32, and truth values bool.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from torch import Tensor

from clipstep.export.compat.coremltools_internals import types
from clipstep.export.unsupported import Unsupported

KINDS: dict[str, Any] = {"fp32": types.fp32, "int32": types.int32, "bool": types.bool}
NUMPY: dict[str, Any] = {"fp32": np.float32, "int32": np.int32, "bool": np.bool_}
LIMIT = 2**31
"""Beyond int32."""


def beyond(what: str) -> Unsupported:
    """Return the refusal of a value that Core ML cannot hold, whatever the operator."""
    return Unsupported(what)


def kind_of_type(dtype: torch.dtype) -> str:
    """Return the name of Core ML's type for one of PyTorch's."""
    if dtype.is_complex:
        raise beyond("complex numbers")
    return "fp32" if dtype.is_floating_point else "bool" if dtype == torch.bool else "int32"


def kind(value: Any) -> str:
    """Return the name of the type of a value or a number."""
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int32"
    if isinstance(value, float | np.floating):
        return "fp32"
    found = {types.fp16: "fp32", types.fp32: "fp32", types.bool: "bool"}
    return found.get(value.dtype, "int32")


def array(value: Tensor) -> Any:
    """Return a constant as Core ML takes it: a numpy array, or a scalar of rank 0.

    Raises:
        Unsupported: it has integers beyond int32, complex numbers, or no elements.
    """
    if not value.numel():
        raise beyond("a constant without elements")
    name = kind_of_type(value.dtype)
    data = value.detach().contiguous()
    if name == "int32" and (int(data.min()) < -LIMIT or int(data.max()) >= LIMIT):
        raise beyond("integers beyond int32")
    return data.to(torch.float32 if name == "fp32" else torch.int32 if name == "int32" else torch.bool).numpy()[()]


def constant(value: Tensor | Sequence[int] | int | float, name: str | None = None) -> Any:
    return mb.const(val=array(torch.as_tensor(value)), **({} if name is None else {"name": name}))


def number(value: Any) -> Any:
    """Return a value of the program as it is, and a number as float32."""
    return np.float32(value) if isinstance(value, int | float) else value


def cast(value: Any, name: str) -> Any:
    """Convert a value or a number. A number is true unless it is 0; a floating-point number becomes an integer without its fraction."""
    given = kind(value)
    if isinstance(value, bool | int | float):
        return NUMPY[name](value)
    if given == name:
        return value
    if name == "bool":
        return mb.not_equal(x=value, y=NUMPY[given](0))
    return mb.cast(x=value, dtype=name)


def promoted(*values: Any, floating: bool = False) -> list[Any]:
    """Convert operands to one type: float32 if one of them is floating-point or `floating` is true, else int32 if one is an integer, else bool."""
    kinds = {kind(value) for value in values}
    name = "fp32" if floating or "fp32" in kinds else "int32" if "int32" in kinds else "bool"
    return [cast(value, name) for value in values]


def arithmetic(*values: Any) -> list[Any]:
    """Convert operands to one type of numbers: as `promoted`, but booleans become integers."""
    found = promoted(*values)
    return [cast(value, "int32") for value in found] if all(kind(value) == "bool" for value in found) else found


def shape_of(value: Any) -> tuple[int, ...]:
    return () if isinstance(value, bool | int | float | np.generic) else tuple(value.shape)


def reshaped(x: Any, shape: Sequence[int]) -> Any:
    """Return a value in another shape; also to or from rank 0."""
    if tuple(shape) == shape_of(x):
        return x
    if not shape:
        return mb.squeeze(x=mb.reshape(x=x, shape=[1]), axes=[0]) if x.rank != 1 else mb.squeeze(x=x, axes=[0])
    return mb.reshape(x=x, shape=list(shape))


def expanded(x: Any, shape: Sequence[int]) -> Any:
    """Return a value repeated along axes of size 1, and along new ones before its own, to a shape."""
    given = shape_of(x)
    padded = (*[1] * (len(shape) - len(given)), *given)
    if padded == tuple(shape):
        return reshaped(x, shape)
    repeats = [whole // size for whole, size in zip(shape, padded, strict=True)]
    return through_integers(lambda value: mb.tile(x=reshaped(value, padded), reps=repeats), x)


def through_integers(function: Callable[[Any], Any], x: Any) -> Any:
    """Call a function on a value; on a boolean one as integers, for operations of Core ML that take only numbers."""
    return cast(function(cast(x, "int32")), "bool") if kind(x) == "bool" else function(x)


def choose(condition: Any, x: Any, y: Any, shape: Sequence[int]) -> Any:
    """Return `x` where the condition is true, else `y`; `shape` is that of the result. Core ML takes its shape from `x` and `y` alone."""
    x, y = promoted(x, y)
    if np.broadcast_shapes(shape_of(x), shape_of(y)) != tuple(shape):
        x = constant(torch.full(tuple(shape), x.item())) if isinstance(x, np.generic) else expanded(x, shape)
    return mb.select(cond=cast(condition, "bool"), a=x, b=y)


def computed(*values: Any) -> bool:
    """Whether one of the values is not a constant."""
    return any(value is not None and value.val is None for value in values)


def check_constant(*values: Any) -> None:
    if computed(*values):
        raise Unsupported("weights that are computed")


def count(sizes: Sequence[int]) -> int:
    return math.prod(sizes)
