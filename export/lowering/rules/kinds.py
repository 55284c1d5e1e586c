"""Rules for kinds of operators, whatever their names: an operator's schema and PyTorch's tags say enough to lower it.

| kind | known by | computed on |
|---|---|---|
| pointwise | the tag `pointwise` | the elements as they lie in memory, or tensors in which axes are joined as far as broadcasting allows |
| reduction | the argument `keepdim`, or the tag `reduction` | a matrix: the kept axes joined, the reduced axes joined |
| along an axis | the argument `dim` without `keepdim` | tensors of rank 3: the axes before it joined, the axis, the axes after it joined |
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.torch_internals import OpOverload, arguments_of, returns_several, tree_map, writes_into_arguments
from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.rules.elementwise import pointwise
from clipstep.export.lowering.rules.formulas import formula_of
from clipstep.export.lowering.values import Value, to_lazy, unwrap_low_rank
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Rule = Callable[..., Any]
DEPENDS_ON_NUMBERS = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
"""The tags of operators that may return shapes or numbers that depend on the numbers in a tensor."""


def kind_of(operator: Any) -> str | None:
    """Return the kind of an operator, None if it is of none of them."""
    if not isinstance(operator, OpOverload) or "fft" in str(operator) or writes_into_arguments(operator):
        return None
    names = {argument.name for argument in arguments_of(operator)}
    if is_pointwise(operator):
        return "pointwise"
    if "keepdim" in names or torch.Tag.reduction in operator.tags:
        return "reduction"
    return "along an axis" if "dim" in names else None


def rule_of_kind(operator: Any) -> Rule | None:
    """Return the rule for an operator of one of the kinds, None for any other operator."""
    kind = kind_of(operator)
    if kind is None:
        return None
    if kind == "pointwise":
        return pointwise(formula_of(operator))
    compute = _reduced if kind == "reduction" else _along_axis
    return lambda profile, *args, **kwargs: compute(operator, args, kwargs)


def is_pointwise(operator: Any) -> bool:
    return isinstance(operator, OpOverload) and torch.Tag.pointwise in operator.tags and not returns_several(operator)


def reason_against(operator: Any) -> str:
    """Return why an operator without a rule cannot be lowered."""
    if not isinstance(operator, OpOverload):
        return "it is not an operator of PyTorch"
    if torch.Tag.nondeterministic_seeded in operator.tags:
        return "it draws random numbers"
    if operator == aten._local_scalar_dense.default:
        return "it reads a number out of a tensor, as item() does, which is not known before the step runs"
    if DEPENDS_ON_NUMBERS & {*operator.tags}:
        return "the shape of what it returns depends on the numbers in a tensor"
    if any(word in str(operator) for word in ("fft", "complex")):
        return "it computes complex numbers"
    if "backward" in str(operator):
        return "it computes gradients"
    if writes_into_arguments(operator):
        return "it writes into its arguments"
    return "it has no rule"


def _reduced(operator: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Reduce the rows of a matrix; without `dim`, all elements."""
    given = _by_name(operator, args, kwargs)
    first, dims, keep = next(iter(given)), given.get("dim"), given.pop("keepdim", False)
    x = to_lazy(given[first])
    rank = len(x.shape)
    axes = sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))})
    kept = [d for d in range(rank) if d not in axes]
    if dims is None or dims == []:
        rows, along = x.tensor(), {}
    else:
        rows = x.permute([*kept, *axes]).tensor((math.prod(x.shape[d] for d in kept), math.prod(x.shape[d] for d in axes)))
        along = {"dim": 1 if isinstance(dims, int) else [1]}
    shape = [1 if d in axes else size for d, size in enumerate(x.shape)] if keep else [x.shape[d] for d in kept]
    return tree_map(lambda data: unwrap_low_rank(LazyPermutation.of(data, shape)), operator(**(given | {first: rows} | along)))


def _along_axis(operator: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Apply the operator along the middle axis of tensors of rank 3; all tensors of the value's rank must have its other sizes."""
    given = _by_name(operator, args, kwargs)
    shape = next(tuple(value.shape) for value in given.values() if isinstance(value, Value | Tensor))
    if not isinstance(given["dim"], int):
        raise Unsupported("an operation along several axes")
    dim = given["dim"] % len(shape)
    before, after = shape[:dim], shape[dim + 1 :]

    def rows(value: Any) -> Any:
        if not isinstance(value, Value | Tensor) or len(value.shape) != len(shape):
            return value
        if (tuple(value.shape[:dim]), tuple(value.shape[dim + 1 :])) != (before, after):
            raise Unsupported(f"values whose sizes differ in other axes than {dim}")
        return to_lazy(value).tensor((math.prod(before), value.shape[dim], math.prod(after)))

    result = operator(**({name: rows(value) for name, value in given.items()} | {"dim": 1}))
    return tree_map(lambda data: unwrap_low_rank(LazyPermutation.of(data, (*before, data.shape[1], *after))), result)


def _by_name(operator: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by their names in the operator's schema, with its defaults."""
    declared = arguments_of(operator)
    given = {argument.name: argument.default_value for argument in declared if argument.has_default_value()}
    given |= {argument.name: value for argument, value in zip(declared, args, strict=False)} | kwargs
    return {argument.name: given[argument.name] for argument in declared}
