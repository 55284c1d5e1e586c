"""A snapshot of all values that can be reached from a network, by path, and the difference of two snapshots.

A path is written as in Python, such as `network.head.past[0]`. `clipstep.export.purity.reachable` takes snapshots.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

PLAIN = (int, float, complex, str, bytes, bool, type(None), type(...), enum.Enum, range, slice, torch.dtype, torch.device, torch.Size)
"""Types of values that hold no others, and are compared by `==`."""
LONGEST_TEXT = 60
"""The most letters of a value that an error shows."""


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()
"""The value at a path that does not exist."""


@dataclass(frozen=True)
class Ref:
    """A reference to where a value is stored: the item `holder[key]`, or the attribute `key` of `holder`."""

    holder: Any
    key: Any
    item: bool = True
    registered: bool = False
    """Whether it is a module's parameter, buffer or submodule."""

    def get(self) -> Any:
        try:
            return self.holder[self.key] if self.item else getattr(self.holder, self.key)
        except (LookupError, AttributeError, ValueError):
            return NOTHING

    def put(self, value: Any) -> None:
        if self.item:
            self.holder[self.key] = value
        else:
            setattr(self.holder, self.key, value)


class Child(NamedTuple):
    """A value found inside of another one, with its path, and a reference to it if it can be replaced."""

    path: str
    value: Any
    ref: Ref | None = None


@dataclass(frozen=True)
class Kind:
    """What a snapshot keeps of a container or an object: its type and size. The values in it have paths of their own."""

    name: str
    size: int | None = None

    def __str__(self) -> str:
        article = "an" if self.name[:1] in "aeiou" else "a"
        return f"{article} {self.name}" + ("" if self.size is None else f" of {self.size}")


@dataclass(frozen=True)
class Entry:
    """The value at a path: a copy of a tensor, a plain value, or a `Kind`; and a reference to it if it can be replaced."""

    value: Any
    ref: Ref | None = None

    def __str__(self) -> str:
        if isinstance(self.value, Tensor):
            return f"a tensor of {tuple(self.value.shape)}"
        text = repr(self.value) if isinstance(self.value, PLAIN) else str(self.value)
        return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


@dataclass(frozen=True)
class Snapshot:
    """All values at one moment, by path; `restore` restores all of them."""

    entries: dict[str, Entry]
    restore: Callable[[], None]

    def at(self, path: str) -> Entry:
        return self.entries.get(path, Entry(NOTHING))


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the paths whose values differ, without paths inside of others that do."""
    return outermost(path for path in {**before.entries, **after.entries} if not same(before.at(path).value, after.at(path).value))


def outermost(paths: Iterable[str]) -> list[str]:
    """Return each path once, without paths inside of others."""
    found = dict.fromkeys(paths)
    return [path for path in found if not any(path[:end] in found for end, letter in enumerate(path) if end and letter in ".[")]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, tensors element by element; not-a-number equals itself."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        return bool(torch.equal(a, b)) or (
            a.is_floating_point() and bool(torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num()))
        )
    return type(a) is type(b) and (a is b or a == b or (isinstance(a, float) and a != a and b != b))
