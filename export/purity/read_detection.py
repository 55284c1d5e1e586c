"""Whether a network ever reads what it writes: a value that reports its reader stands in for it during one run."""

from collections.abc import Callable, Sequence
from typing import Any

from clipstep.export.compat.torch_internals import tree_leaves
from clipstep.export.purity.snapshot import Ref
from clipstep.export.source_lines import UNKNOWN, frames_to_theirs, line_of_frame

WRITES = (
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
"""Methods that write, and say nothing of what was there."""
KEEPS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
"""Operators whose result would still be the unread value."""
READS = (
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
"""Operators that look at the value."""


class ReadError(Exception):
    """Raised where a stand-in is read: the network cannot go on without the value."""


class Poison:
    """Stands in for a value: it may be replaced, written to and calculated with, but whoever reads it is noted."""

    def __init__(self, readers: list[str]) -> None:
        self.__dict__["readers"] = readers

    def __getattr__(self, name: str) -> Any:
        return (lambda *_, **__: self) if name in WRITES else _read(self)

    def __setattr__(self, name: str, value: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __delitem__(self, key: Any) -> None: ...

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _read(next((value for value in tree_leaves((args, kwargs)) if isinstance(value, Poison)), None))


def _read(poison: Poison | None, *_: Any) -> Any:
    stack = frames_to_theirs()
    if poison is not None:
        poison.__dict__["readers"].append(line_of_frame(stack[-1]) if stack else UNKNOWN)
    raise ReadError


for _name in READS:
    setattr(Poison, f"__{_name}__", _read)
for _name in KEEPS:
    for _kind in ("", "r", "i"):
        setattr(Poison, f"__{_kind}{_name}__", lambda self, other: self)


def read_by(refs: Sequence[Ref], agrees: Callable[[], bool]) -> str | None:
    """The line that reads one of the values at ``refs``; None if nothing does and ``agrees``, which runs the network, still says so."""
    readers: list[str] = []
    try:
        for ref in refs:
            ref.put(Poison(readers))
        fine = agrees()
    except Exception:  # It cannot be put there, or a reader's, or whatever the user's network raises on it.
        fine = False
    return None if fine and not readers else next(iter(readers), UNKNOWN)
