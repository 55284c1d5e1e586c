"""Finds the values that the user's functions and classes hold: closures, default arguments, attributes, and the global variables that they name.

Each `of_*` works as those of `clipstep.export.purity.reachable_data`.
"""

import contextlib
import types
from collections.abc import Iterator
from typing import Any

from clipstep.export.purity.reachable_data import items
from clipstep.export.purity.snapshot import Child, Ref
from clipstep.export.purity.undo import Undo
from clipstep.export.source_lines import is_user_class, is_user_file


def of_function(function: types.FunctionType, path: str, undo: Undo) -> Iterator[Child]:
    """Yield the values of a function; their paths start with its name, however it was reached."""
    if not is_user_file(function.__code__.co_filename):
        return
    where = f"{function.__module__}.{function.__qualname__}"
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # The cell is still empty.
            yield Child(f"{name} in {where}", cell.cell_contents, undo.value(Ref(cell, "cell_contents", item=False), cell.cell_contents))
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    for index, name in enumerate(arguments[len(arguments) - len(defaults) :]):
        yield Child(f"{name} in {where}", defaults[index], Ref(defaults, index))
    yield from items(function.__kwdefaults__ or {}, lambda name: f"{name} in {where}", undo)
    yield from items(function.__dict__, lambda name: f"{where}.{name}", undo)
    yield from _globals(function, undo)


def of_class(kind: type, path: str, undo: Undo) -> Iterator[Child]:
    """Yield the values of a class; their paths start with its name."""
    if not is_user_class(kind):
        return
    undo.new_attributes(kind)
    for name, value in list(vars(kind).items()):
        value = getattr(value, "__func__", value)  # The function of a static or class method.
        if name.startswith("__") and not isinstance(value, types.FunctionType):
            continue
        where = f"{kind.__module__}.{kind.__qualname__}.{name}"
        if isinstance(value, property):
            yield from (Child(where, function) for function in (value.fget, value.fset))
        else:
            yield Child(where, value, None if isinstance(value, types.FunctionType) else undo.value(Ref(kind, name, item=False), value))


def of_method(method: types.MethodType, path: str, undo: Undo) -> Iterator[Child]:
    yield Child(f"{path}.__self__", method.__self__)
    yield Child(f"{path}.__func__", method.__func__)


def of_generator(generator: "types.GeneratorType[Any, Any, Any]", path: str, undo: Undo) -> Iterator[Child]:
    for name, value in (generator.gi_frame.f_locals if generator.gi_frame else {}).items():
        yield Child(f"{name} in {path}", value)


def _globals(function: types.FunctionType, undo: Undo) -> Iterator[Child]:
    names = _names_in(function.__code__)
    variables = function.__globals__
    undo.new_variables(variables, names - variables.keys())
    for name in names & variables.keys():
        yield from _variable(function.__module__, variables, name, names, undo)


def _variable(module: str, variables: dict[str, Any], name: str, names: set[str], undo: Undo) -> Iterator[Child]:
    """Yield a global variable. If its value is a module of the user's, yield instead that module's variables whose names occur in the code."""
    value = variables[name]
    if not isinstance(value, types.ModuleType):
        ref = Ref(variables, name)
        yield Child(f"{module}.{name}", value, ref if isinstance(value, types.FunctionType | type) else undo.value(ref, value))
    elif is_user_file(getattr(value, "__file__", None) or "<"):
        for inner in names & vars(value).keys():
            if not isinstance(vars(value)[inner], types.ModuleType):
                yield from _variable(value.__name__, vars(value), inner, names, undo)


def _names_in(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes in the code, and in the code of the functions inside it."""
    return set(code.co_names).union(*(_names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)))
