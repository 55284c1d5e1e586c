"""An operation of an ML Program, prepared once so that a step only computes: its function, its constant inputs and the types of its results."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from clipstep.export.mil import EXACT, OPERATIONS, ROUNDING
from clipstep.export.mil.constants import DTYPES, immediate
from clipstep.runtime.coremltools_files import MIL
from clipstep.runtime.errors import ClipstepError

SETTINGS = frozenset(
    {"axes", "begin", "begin_mask", "crop_height", "crop_width", "dilations", "end", "end_mask", "kernel_sizes", "output_shape", "pad", "perm"}
    | {"reps", "shape", "size", "split_sizes", "squeeze_mask", "stride", "strides"}
)
"""Inputs that are lists of integers or booleans; constant ones are passed as tuples."""
LISTS = frozenset({"values"})
"""Inputs that are lists of values, even of a single one."""
signature = cache(inspect.signature)


@dataclass(frozen=True, slots=True)
class Result:
    """What a program declares of a value."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    rounded: bool
    """Whether it is rounded to float16, and held in float32."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation whose inputs are looked up by name in the values of a step."""

    type: str
    function: Callable[..., Any]
    fixed: Mapping[str, Any]
    """Its constant inputs."""
    computed: tuple[tuple[str, str], ...]
    """Its other inputs, each with the name of a value."""
    lists: tuple[tuple[str, tuple[str, ...]], ...]
    """Its inputs that are several values, each with their names."""
    results: tuple[Result, ...]
    unused: tuple[str, ...] = ()
    """The values that no later operation needs."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the values that it reads."""
        return (*(name for _, name in self.computed), *(name for _, names in self.lists for name in names))

    def run(self, values: dict[str, Any]) -> None:
        """Compute the operation, add its results to the values of a step, and drop those that are not needed any more.

        Raises:
            ClipstepError: the results are not as many as declared, or one does not have the declared shape.
        """
        arguments = dict(self.fixed)
        for parameter, name in self.computed:
            arguments[parameter] = values[name]
        for parameter, names in self.lists:
            arguments[parameter] = [values[name] for name in names]
        given = self.function(**arguments)
        found = given if isinstance(given, tuple | list) else (given,)
        if len(found) != len(self.results):
            raise ClipstepError(f"{self.type}: another number of results than declared", got=len(found), expected=len(self.results))
        for result, value in zip(self.results, found, strict=True):
            if tuple(value.shape) != result.shape:
                raise ClipstepError(f"{self.type}: the result has another shape than declared", got=tuple(value.shape), expected=result.shape)
            values[result.name] = value.half().float() if result.rounded else value.to(result.dtype)
        for name in self.unused:
            del values[name]


def prepared(operation: Any, constants: Mapping[str, Any], rounding: bool) -> Operation:
    """Prepare an operation of a program. Without `rounding`, values are not rounded to float16 or to integers of a scale.

    Raises:
        ClipstepError: an operation, input or type that this evaluator does not know.
    """
    function = OPERATIONS.get(operation.type)
    if function is None:
        raise ClipstepError(f"unknown ML Program operation {operation.type}", expected=f"one of {', '.join(sorted(OPERATIONS))}")
    fixed: dict[str, Any] = {}
    computed, lists = [], []
    for parameter, argument in operation.inputs.items():
        if parameter in LISTS or len(argument.arguments) != 1:
            lists.append((parameter, tuple(a.name for a in argument.arguments)))
            continue
        (given,) = argument.arguments
        if given.WhichOneof("binding") == "value":
            fixed[parameter] = _setting(parameter, immediate(given.value))
        elif given.name in constants:
            fixed[parameter] = _setting(parameter, constants[given.name])
        else:
            computed.append((parameter, given.name))
    if operation.blocks or set(operation.attributes) - {"name"}:
        raise ClipstepError(f"{operation.type}: blocks or attributes that this evaluator does not know")
    try:
        signature(function).bind(**dict.fromkeys(operation.inputs))
    except TypeError as error:
        raise ClipstepError(f"{operation.type}: inputs this evaluator does not know", got=", ".join(operation.inputs)) from error
    if operation.type == "cast" and not rounding and fixed["dtype"] in ("fp16", "fp32"):
        fixed["dtype"] = "fp32"
    if operation.type in ROUNDING and not rounding:
        function = _unrounded
    results = tuple(_result(operation.type, value, rounding) for value in operation.outputs)
    return Operation(operation.type, function, fixed, tuple(computed), tuple(lists), results)


def _unrounded(*, input: Tensor, **_: Any) -> Tensor:
    return input


def _setting(parameter: str, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if parameter in SETTINGS:
        return tuple(value.tolist())
    return value.float() if value.dtype == torch.float16 else value


def _result(kind: str, output: Any, rounding: bool) -> Result:
    declared = output.type.tensorType
    dtype = DTYPES.get(declared.dataType)
    if not isinstance(dtype, torch.dtype):
        raise ClipstepError(f"{kind}: a result of a type this evaluator does not know", got=MIL.DataType.Name(declared.dataType))
    shape = tuple(d.constant.size for d in declared.dimensions)
    if kind in ROUNDING and not rounding:
        dtype = torch.float32
    half = dtype == torch.float16
    return Result(output.name, shape, torch.float32 if half else dtype, half and rounding and kind not in EXACT)
