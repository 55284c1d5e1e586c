"""The tables of docs/operators.md: the operators that writers take, and those that the lowering has rules for.

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

from clipstep.export.compat.torch_internals import argument_names, keyword_only_arguments
from clipstep.export.lowering.rules import RULES
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

## Operators of lowered graphs

"yes" means that the writer takes the operator with all settings, "yes, except" that it takes it without the arguments and settings named,
"no" that it leaves the graph to the converter or, in ExecuTorch, the operator to a portable kernel. So it is with operators that are not listed. In
ExecuTorch's column, "yes" also stands for operators that are computed from others, as layer norms are from means; of these a few, such as sorts, are
then outside of XNNPACK. Inputs are float32: operations on other values are outside of XNNPACK, and so is the conversion of frames from uint8.
In Core ML, float64 is float32 and int64 is int32; constants beyond int32, complex numbers and values without elements are refused.

{writers}

## Operators with a rule for values of rank 5 or more

An operator without a rule is an error at export, if it gets or gives a value of rank 5 or more. The error names the line of the network.

{rules}
"""


def writer_rows() -> list[tuple[str, ...]]:
    """Return a row for each operator that a writer takes or a rule emits: its name, and what each target's writer takes of it."""
    tables = [target.load_writer().OPERATORS for target in TARGETS.values()]
    operators = sorted({operator for table in tables for operator in table if operator is not getitem}, key=str)
    return [(f"`{operator}`", *(_verdict(operator, table.get(operator)) for table in tables)) for operator in operators]


def rule_rows() -> list[tuple[str, str]]:
    """Return a row for each operator that has a rule: its name, and the file of `export/lowering/rules/` with the rule."""
    found = {str(operator): function.__module__ for operator, function in RULES.items() if operator is not getitem}
    return [(f"`{operator}`", f"`{module.rsplit('.', 1)[-1]}.py`") for operator, module in sorted(found.items())]


def _verdict(operator: Any, function: Function | None) -> str:
    if function is None:
        return "no"
    exceptions = [*(f"`{name}`" for name in _missing_arguments(operator, function)), *refusals(function)]
    return f"yes, except {'; '.join(exceptions)}" if exceptions else "yes"


def _missing_arguments(operator: Any, function: Function) -> list[str]:
    """Return the operator's arguments that the function has no parameter for, so that a graph which gives them is refused."""
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
    return PAGE.format(writers=_table(("operator", *names), writer_rows()), rules=_table(("operator", "rule in"), [*rule_rows()]))


if __name__ == "__main__":
    print(page(), end="")
