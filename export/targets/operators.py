"""The tables of docs/operators.md: how the lowering handles Core ATen's operators, those that writers take, and those that have rules.

`python -m clipstep.export.targets.operators` prints the page. It is derived from the functions that write operators: from the arguments
that they have parameters for, and from the reasons with which they refuse settings.
"""

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from operator import getitem
from typing import Any

import torch

from clipstep.export.compat.torch_internals import (
    argument_names,
    keyword_only_arguments,
    operators_of_core_aten,
    returns_tensors,
    takes_tensors,
)
from clipstep.export.lowering.decompositions import OWN, decompositions
from clipstep.export.lowering.passes.whole_values import BY_PASS, simplify_pools_and_strides
from clipstep.export.lowering.rules import BY_RULE_ALWAYS, RULES
from clipstep.export.lowering.rules.formulas import FORMULAS
from clipstep.export.lowering.rules.kinds import kind_of, reason_against
from clipstep.export.targets import TARGETS
from clipstep.export.targets.common import signature
from clipstep.export.unsupported import Unsupported

Function = Callable[..., Any]
aten = torch.ops.aten
WRITERS = "clipstep.export.targets"
"""The package whose functions write operators."""
PAGE = """# Operators

This page is printed by `python -m clipstep.export.targets.operators`, from the tables and functions of the code.

An export takes every operator of PyTorch's ATen that `torch.export` gives. Values of rank 5 or more are rewritten by
[the lowering](lowering.md), which needs a *rule* for the operator. All others pass through it as they are. The lowered graph is then
written operator by operator.

If it has an operator or a setting that the writer of ONNX or Core ML does not take, the whole graph goes through the target's own converter
instead (torch.onnx, coremltools), which takes more operators, is slower, and may give a slower file.

For ExecuTorch, only the operators that XNNPACK does not take are outside of it, in ExecuTorch's portable kernels; what is before and after them is
in one XNNPACK delegate each. `clipstep export` and `clipstep inspect` print the number of delegate calls, what is outside and why; the manifest
has it as `placement`. Convolutions and matrix products are never outside: those that XNNPACK does not have are computed from those that it
has, or the export is refused. It is also refused for an operator that has no portable kernel either.

## Core ATen

What `torch.export` gives can be decomposed into the operators that PyTorch calls Core ATen. Each of them is handled in one of these ways, or is
refused with the reason that stands here:

- by a *rule*, a function for that operator;
- by a *decomposition* into others, PyTorch's or ours;
- by its *kind* ([how a network is lowered](lowering.md)): pointwise, a reduction, or along an axis;
- by a *pass* over the graph, for those whose meaning depends on how their results are used;
- at export, if it makes a constant or a number that is known then;
- as it is, if its values never have more than four axes and every writer takes it.

{core}

## Operators of lowered graphs

These are the operators that the lowering leaves, with the settings that it leaves. "yes" means that the writer takes the operator with all of
them, "yes, except" that it takes it without the arguments and settings named, "no" that it leaves the graph to the converter or, in ExecuTorch,
the operator to a portable kernel. So it is with other operators that the lowering leaves as they are. In ExecuTorch's column, "yes" also stands for
operators that are computed from others, as powers are from products. Inputs are float32: operations on other values are outside of XNNPACK, and so
is the conversion of frames from uint8.
In Core ML, float64 is float32 and int64 is int32; constants beyond int32, complex numbers and values without elements are refused.

{writers}

## Operators with a rule for values of rank 5 or more

An operator without a rule is an error at export, if it gets or gives a value of rank 5 or more. The error names the line of the network.

{rules}
"""


def core_rows() -> list[tuple[str, str]]:
    """Return a row for each operator of Core ATen: its name, and how it is handled or why it is not."""
    return [(f"`{operator}`", answer(operator)) for operator in sorted(operators_of_core_aten(), key=str)]


def answer(operator: Any) -> str:
    """Return how the lowering handles an operator or, after "no: ", why it does not."""
    if not returns_tensors(operator):
        return "a number known at export" if torch.Tag.data_dependent_output not in operator.tags else f"no: {reason_against(operator)}"
    if operator in RULES:
        return f"rule in `rules/{_file(RULES[operator])}`"
    if operator in OWN:
        return f"decomposition in `decompositions/{_file(OWN[operator])}`"
    if operator in decompositions():
        return "PyTorch's decomposition"
    if (kind := kind_of(operator)) is not None:
        return f"{kind}, by a formula" if operator in FORMULAS else kind
    if operator in BY_PASS:
        return f"pass `{simplify_pools_and_strides.__name__}`"
    if not takes_tensors(operator) and torch.Tag.nondeterministic_seeded not in operator.tags:
        return "a constant, made at export"
    if all(operator in target.load_writer().OPERATORS for target in TARGETS.values()):
        return "as it is"
    return f"no: {reason_against(operator)}"


def _file(function: Any) -> str:
    """Return the name of the file that a function, perhaps with some arguments given, is in."""
    return f"{getattr(function, 'func', function).__module__.rsplit('.', 1)[-1]}.py"


def writer_rows() -> list[tuple[str, ...]]:
    """Return a row for each operator that a writer takes or a rule emits: its name, and what each target's writer takes of it."""
    tables = [target.load_writer().OPERATORS for target in TARGETS.values()]
    operators = sorted({operator for table in tables for operator in table if operator is not getitem}, key=str)
    return [(f"`{operator}`", *(_verdict(operator, table.get(operator)) for table in tables)) for operator in operators]


def rule_rows() -> list[tuple[str, str]]:
    """Return a row for each operator that has a rule: its name, and the file of `export/lowering/rules/` with the rule."""
    found = {str(operator): _file(function) for operator, function in RULES.items() if operator is not getitem}
    return [(f"`{operator}`", f"`{file}`") for operator, file in sorted(found.items())]


def _verdict(operator: Any, function: Function | None) -> str:
    if function is None:
        return "no"
    exceptions = [*(f"`{name}`" for name in _missing_arguments(operator, function)), *refusals(function)]
    return f"yes, except {'; '.join(exceptions)}" if exceptions else "yes"


def _missing_arguments(operator: Any, function: Function) -> list[str]:
    """Return the operator's arguments that the function has no parameter for, so that a graph which gives them is refused.

    Those of an operator with a formula are none: the formula is for the settings that engines lack.
    """
    if operator in FORMULAS or operator in BY_RULE_ALWAYS:
        return []
    parameters = [p for p in signature(function).parameters.values() if p.name != "graph"]
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    places = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    kinds = {p.kind for p in parameters}
    missing = []
    by_name = keyword_only_arguments(operator)
    for place, name in enumerate(argument_names(operator)):
        if name in by_name:
            taken = name in names or inspect.Parameter.VAR_KEYWORD in kinds
        else:
            taken = place < places or inspect.Parameter.VAR_POSITIONAL in kinds
        if not taken:
            missing.append(name)
    return missing


def refusals(function: Function) -> list[str]:
    """Return the reasons for which a function raises `Unsupported`, itself or in a function that it calls."""
    found: dict[str, None] = {}
    queue, seen = [function], {function}
    while queue:
        current = queue.pop(0)
        found.update(dict.fromkeys(_reasons(current)))
        called = [value for value in _used(current) if inspect.isfunction(value) and value.__module__.startswith(WRITERS) and value not in seen]
        seen.update(called)
        queue += called
    return list(found)


def _used(function: Any) -> Iterator[Any]:
    """Yield the global values that a function reads, and those of its closure."""
    for code in (function.__code__, *(value for value in function.__code__.co_consts if inspect.iscode(value))):
        for instruction in dis.get_instructions(code):
            if instruction.opname == "LOAD_GLOBAL" and instruction.argval in function.__globals__:
                yield function.__globals__[instruction.argval]
    for cell in function.__closure__ or ():
        yield cell.cell_contents


def _reasons(function: Function) -> Iterator[str]:
    if function.__name__ == "<lambda>":  # It cannot raise, and its source is not a statement.
        return
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") == Unsupported.__name__:
            (reason,) = node.exc.args
            if not isinstance(reason, ast.Constant):
                raise TypeError(f"{function.__qualname__}: the reason for a refusal is not a constant text, so that it cannot be listed")
            yield str(reason.value)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


def page() -> str:
    """Return the text of docs/operators.md."""
    names = tuple(target.info.display_name for target in TARGETS.values())
    core, rules = _table(("operator", "handled by"), [*core_rows()]), _table(("operator", "rule in"), [*rule_rows()])
    return PAGE.format(core=core, writers=_table(("operator", *names), writer_rows()), rules=rules)


if __name__ == "__main__":
    print(page(), end="")
