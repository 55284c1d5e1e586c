"""What was at each place that can be reached from a network, at one moment; and what changed between two moments.

A place has a path, such as ``network.head.past[0]``. :mod:`clipstep.export.purity.reachable` finds the places.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

PLAIN = (int, float, complex, str, bytes, bool, type(None), type(...), enum.Enum, range, slice, torch.dtype, torch.device, torch.Size)
"""Types of values that are compared as a whole."""
LONGEST = 60


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()
"""What is at a path that does not exist."""


@dataclass(frozen=True)
class Ref:
    """Where a value is kept: the item, or the attribute, ``key`` of ``holder``."""

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
    """A value found in something, its path, and where it is kept, if something else can be put there."""

    path: str
    value: Any
    ref: Ref | None = None


@dataclass(frozen=True)
class Kind:
    """A container or an object as a place: its type and size. What is in it has paths of its own."""

    name: str
    size: int | None = None

    def __str__(self) -> str:
        article = "an" if self.name[:1] in "aeiou" else "a"
        return f"{article} {self.name}" + ("" if self.size is None else f" of {self.size}")


@dataclass(frozen=True)
class Place:
    """What was at a path: a tensor's numbers, a plain value, or a :class:`Kind`; and where it is kept, if something else can be put there."""

    value: Any
    ref: Ref | None = None

    def __str__(self) -> str:
        if isinstance(self.value, Tensor):
            return f"a tensor of {tuple(self.value.shape)}"
        text = repr(self.value) if isinstance(self.value, PLAIN) else str(self.value)
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


@dataclass(frozen=True)
class Snapshot:
    """Every place at one moment; ``restore`` puts everything back as it was then."""

    places: dict[str, Place]
    restore: Callable[[], None]

    def at(self, path: str) -> Place:
        return self.places.get(path, Place(NOTHING))


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """The paths at which something else is, without those inside of others."""
    return outermost(path for path in {**before.places, **after.places} if not same(before.at(path).value, after.at(path).value))


def outermost(paths: Iterable[str]) -> list[str]:
    """Each path once, without those inside of others."""
    found = dict.fromkeys(paths)
    return [path for path in found if not any(path[:end] in found for end, letter in enumerate(path) if end and letter in ".[")]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, tensors number by number; not-a-number equals itself."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        return bool(torch.equal(a, b)) or (
            a.is_floating_point() and bool(torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num()))
        )
    return type(a) is type(b) and (a is b or a == b or (isinstance(a, float) and a != a and b != b))
