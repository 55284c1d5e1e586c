"""Finds out whether a network ever reads a value that it changes: during one run a proxy object stands in its place and reports its readers."""

from collections.abc import Callable, Sequence
from typing import Any

from clipstep.export.compat.torch_internals import tree_leaves
from clipstep.export.purity.snapshot import Ref
from clipstep.export.source_lines import UNKNOWN, line_of_frame, stack_to_user_code

WRITING_METHODS = (
    "append",
    "appendleft",
    "extend",
    "insert",
    "add",
    "update",
    "clear",
    "copy_",
    "zero_",
    "fill_",
    "add_",
    "mul_",
    "setdefault",
    "pop",
    "popleft",
)
"""Methods that change a value, and whose callers do not depend on what it was."""
ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
"""Operators whose result is the proxy again: a counter that is only added to is not read."""
READING_METHODS = (
    "bool",
    "len",
    "iter",
    "contains",
    "getitem",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "hash",
    "int",
    "float",
    "index",
    "call",
    "str",
    "repr",
    "format",
    "next",
    "enter",
    "abs",
    "round",
    "array",
    "complex",
)
"""Special methods whose caller needs the value."""


class ReadError(Exception):
    """Raised where a proxy is read: the network cannot go on without the value."""


class ReadProxy:
    """Stands in for a value. It can be replaced, written to and calculated with; whoever reads it is added to `readers`."""

    def __init__(self, readers: list[str]) -> None:
        self.__dict__["readers"] = readers

    def __getattr__(self, name: str) -> Any:
        return (lambda *_, **__: self) if name in WRITING_METHODS else _read(self)

    def __setattr__(self, name: str, value: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __delitem__(self, key: Any) -> None: ...

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _read(next((value for value in tree_leaves((args, kwargs)) if isinstance(value, ReadProxy)), None))


def _read(proxy: ReadProxy | None, *_: Any) -> Any:
    stack = stack_to_user_code()
    if proxy is not None:
        proxy.__dict__["readers"].append(line_of_frame(stack[-1]) if stack else UNKNOWN)
    raise ReadError


for _name in READING_METHODS:
    setattr(ReadProxy, f"__{_name}__", _read)
for _name in ARITHMETIC:
    for _kind in ("", "r", "i"):
        setattr(ReadProxy, f"__{_kind}{_name}__", lambda self, other: self)


def reader_of(refs: Sequence[Ref], unchanged: Callable[[], bool]) -> str | None:
    """Return the line that reads one of the values at `refs`; None if no line does.

    `unchanged` runs the network with proxies in the place of the values, and returns whether its outputs stayed the same.
    """
    readers: list[str] = []
    try:
        for ref in refs:
            ref.put(ReadProxy(readers))
        fine = unchanged()
    except Exception:  # The proxy cannot be put there, or was read, or the user's network failed on it.
        fine = False
    return None if fine and not readers else next(iter(readers), UNKNOWN)
