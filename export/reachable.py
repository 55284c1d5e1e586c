"""What can be reached from a network: its tensors and everything in Python's objects that hang off it, by path.

That is modules, their attributes, containers and plain objects; the classes and functions of the user's that these run, with what they
enclose, their default arguments, and the variables of their modules that they name.
"""

import array
import collections
import contextlib
import contextvars
import copy
import enum
import functools
import pickle
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipstep.export.source import is_theirs

PLAIN = (int, float, complex, str, bytes, bool, type(None), type(...), enum.Enum, range, slice, torch.dtype, torch.device, torch.Size)
NOT_WALKED = {"logging", "torch", "_io", "io", "typing", "abc", "re", "inspect", "importlib", "warnings", "threading", "_thread", "tqdm", "numpy"}
"""Top-level modules of classes whose objects keep nothing of a network's."""
REGISTERED = ("_parameters", "_buffers", "_modules")
RANDOM = ".<random state>"
"""Ends the path of what a random source of the network's own will draw next."""
MOST = 200_000
"""Objects that are looked at."""


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()
"""What is at a path that does not exist."""


@dataclass(frozen=True)
class Ref:
    """Where a value hangs: an item, or an attribute, of something."""

    holder: Any
    key: Any
    item: bool = True
    registered: bool = False
    """Whether it is a module's parameter or buffer."""

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


@dataclass(frozen=True)
class Kind:
    """What a container or an object looks like from outside; what is in it has paths of its own."""

    name: str
    size: int | None = None

    def __str__(self) -> str:
        article = "an" if self.name[:1] in "aeiou" else "a"
        return f"{article} {self.name}" + ("" if self.size is None else f" of {self.size}")


@dataclass(frozen=True)
class Place:
    """What was at a path: a tensor's numbers, a plain value, or a :class:`Kind`; and where it hangs, if something else can be put there."""

    value: Any
    ref: Ref | None = None

    def __str__(self) -> str:
        if isinstance(self.value, Tensor):
            return f"a tensor of {tuple(self.value.shape)}"
        text = repr(self.value) if isinstance(self.value, PLAIN) else str(self.value)
        return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass
class Snapshot:
    """Every place at one moment."""

    places: dict[str, Place] = field(default_factory=dict)
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def restore(self) -> None:
        """Puts everything back as it was then."""
        for undo in self._undo:
            with contextlib.suppress(AttributeError, TypeError):  # Read-only after all.
                undo()


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """The paths at which something else is, without those inside of others."""
    paths = [path for path in {**before.places, **after.places} if not same(_value(before, path), _value(after, path))]
    return outermost(paths)


def outermost(paths: Iterable[str]) -> list[str]:
    """Each path once, without those inside of others."""
    found = dict.fromkeys(paths)
    return [path for path in found if not any(path[:end] in found for end, letter in enumerate(path) if end and letter in ".[")]


def place(snapshot: Snapshot, path: str) -> Place:
    return snapshot.places.get(path, Place(NOTHING))


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, not-a-numbers too; tensors number by number."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        return bool(torch.equal(a, b)) or (
            a.is_floating_point() and bool(torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num()))
        )
    return type(a) is type(b) and (a is b or a == b or (isinstance(a, float) and a != a and b != b))


def _value(snapshot: Snapshot, path: str) -> Any:
    return place(snapshot, path).value


@torch.no_grad()
def snapshot(root: object, name: str) -> Snapshot:
    """All that can be reached from ``root``, whose path is ``name``."""
    return _Walk().of(root, name)


class _Walk:
    """Breadth first, so that a thing is known by its shortest path."""

    def __init__(self) -> None:
        self.found = Snapshot()
        self._seen: dict[int, Any] = {}  # Kept alive, so that no id is used twice.
        self._next: collections.deque[tuple[str, Any, Ref | None]] = collections.deque()

    def of(self, root: object, name: str) -> Snapshot:
        self._next.append((name, root, None))
        while self._next and len(self.found.places) < MOST:
            self._visit(*self._next.popleft())
        return self.found

    def _visit(self, path: str, thing: Any, ref: Ref | None) -> None:
        if isinstance(thing, Tensor):
            self._tensor(path, thing, ref)
            return
        if isinstance(thing, PLAIN):
            self.found.places[path] = Place(thing, ref)
            return
        if isinstance(thing, weakref.ref):
            self._next.append((path, thing(), None))
            return
        self.found.places[path] = Place(_kind(thing), ref)
        if id(thing) not in self._seen:
            self._seen[id(thing)] = thing
            for child in self._children(path, thing):
                self._next.append(child)

    def _tensor(self, path: str, tensor: Tensor, ref: Ref | None) -> None:
        if nn.parameter.is_lazy(tensor) or tensor.is_meta:
            self.found.places[path] = Place(Kind("tensor without numbers"), ref)
            return
        if id(tensor) not in self._seen:
            kept = tensor.detach().clone()
            self._seen[id(tensor)] = (tensor, kept)
            self.found._undo.append(lambda: _put_back(tensor, kept))
        self.found.places[path] = Place(self._seen[id(tensor)][1], ref)

    def _children(self, path: str, thing: Any) -> Iterator[tuple[str, Any, Ref | None]]:
        if isinstance(thing, dict):
            yield from self._items(thing, lambda key: f"{path}[{key!r}]" if isinstance(key, PLAIN) else f"{path}[a {type(key).__name__}]")
        elif isinstance(thing, list | collections.deque):
            kept = list(thing)
            self.found._undo.append(lambda: _refill(thing, kept))
            for index, value in enumerate(kept):
                yield f"{path}[{index}]", value, Ref(thing, index)
        elif isinstance(thing, tuple):
            for index, value in enumerate(thing):
                yield f"{path}[{index}]", value, Ref(thing, index)
        elif isinstance(thing, set):
            members = set(thing)
            self.found._undo.append(lambda: _update(thing, members))
            for index, value in enumerate(sorted(thing, key=repr)):
                yield f"{path}{{{index}}}", value, None
        elif isinstance(thing, np.ndarray | array.array | bytearray):
            yield from self._numbers(path, thing)
        elif isinstance(thing, types.FunctionType):
            yield from self._function(thing)
        elif isinstance(thing, types.MethodType):
            yield from ((f"{path}.__self__", thing.__self__, None), (f"{path}.__func__", thing.__func__, None))
        elif isinstance(thing, functools.partial):
            yield from ((f"{path}.{name}", getattr(thing, name), None) for name in ("func", "args", "keywords"))
        elif isinstance(thing, type):
            yield from self._class(thing)
        elif isinstance(thing, types.GeneratorType):
            yield from ((f"{name} in {path}", value, None) for name, value in (thing.gi_frame.f_locals if thing.gi_frame else {}).items())
        elif any(thing is shared for shared in SHARED_SOURCES):
            return
        elif (source := RandomSource.of(thing)) is not None:
            kept = source.read()
            self.found._undo.append(lambda: source.write(kept))
            yield f"{path}{RANDOM}", source.seen, Ref(source, "seen", item=False)
        elif isinstance(thing, contextvars.ContextVar):
            yield f"{path}.get()", thing.get(None), None
        else:
            yield from self._object(path, thing)

    def _object(self, path: str, thing: Any) -> Iterator[tuple[str, Any, Ref | None]]:
        kind = type(thing)
        if isinstance(thing, types.ModuleType) or (
            kind.__module__.partition(".")[0] in NOT_WALKED and not isinstance(thing, nn.Module | threading.local)
        ):
            return
        if kind.__module__ == "itertools":
            yield f"{path}.<state>", repr(thing), None
            return
        if isinstance(thing, torch.jit.ScriptModule):
            yield from ((f"{path}.{name}", tensor, None) for name, tensor in (*thing.named_parameters(), *thing.named_buffers()))
            return
        if isinstance(thing, nn.Module):
            for registered in (thing._parameters, thing._buffers, thing._modules):
                yield from self._items(registered, lambda name: f"{path}.{name}", registered=True)
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict):
            inside = [name for name, value in attributes.items() if name in REGISTERED or (name[0] == "_" and isinstance(value, dict) and not value)]
            yield from self._items(attributes, lambda name: f"{path}.{name}", inside if isinstance(thing, nn.Module) else ())
        slots = [name for base in kind.__mro__ for name in _names(base.__dict__.get("__slots__", ())) if hasattr(thing, name)]
        for name in slots:
            if name not in ("__dict__", "__weakref__"):
                yield f"{path}.{name}", getattr(thing, name), self._attribute(thing, name, getattr(thing, name))
        yield from ((f"{base.__module__}.{base.__qualname__}", base, None) for base in kind.__mro__ if _is_theirs(base))
        if isinstance(attributes, dict) or slots or callable(thing):
            return
        with contextlib.suppress(Exception):  # Objects written in C say by pickling what they hold: counters, random sources.
            yield f"{path}.<state>", thing.__reduce_ex__(4)[1:], None

    def _items(
        self, items: dict[Any, Any], path: Callable[[Any], str], skip: Sequence[str] = (), *, registered: bool = False
    ) -> Iterator[tuple[str, Any, Ref | None]]:
        kept = dict(items)
        self.found._undo.append(lambda: _update(items, kept))
        for key, value in kept.items():
            if key not in skip:
                yield path(key), value, Ref(items, key, registered=registered)

    def _attribute(self, holder: Any, name: str, value: Any) -> Ref:
        ref = Ref(holder, name, item=False)
        self.found._undo.append(lambda: ref.put(value))
        return ref

    def _numbers(self, path: str, thing: Any) -> Iterator[tuple[str, Any, Ref | None]]:
        kept = thing.copy() if isinstance(thing, np.ndarray) else thing[:]
        if len(kept):
            self.found._undo.append(lambda: thing.__setitem__(... if isinstance(thing, np.ndarray) else slice(None), kept))
        yield f"{path}[:]", _as_plain(kept), None

    def _class(self, kind: type) -> Iterator[tuple[str, Any, Ref | None]]:
        if not _is_theirs(kind):
            return
        kept = set(vars(kind))
        self.found._undo.append(lambda: _delete_new(kind, kept))
        for name, value in list(vars(kind).items()):
            value = getattr(value, "__func__", value)  # Of static and class methods.
            if name.startswith("__") and not isinstance(value, types.FunctionType):
                continue
            for function in (value.fget, value.fset) if isinstance(value, property) else (value,):
                ref = None if isinstance(function, types.FunctionType) else self._attribute(kind, name, value)
                yield f"{kind.__module__}.{kind.__qualname__}.{name}", function, ref

    def _function(self, function: types.FunctionType) -> Iterator[tuple[str, Any, Ref | None]]:
        if not is_theirs(function.__code__.co_filename):
            return
        where = f"{function.__module__}.{function.__qualname__}"
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # Still empty.
                yield f"{name} in {where}", cell.cell_contents, self._attribute(cell, "cell_contents", cell.cell_contents)
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = function.__defaults__ or ()
        for index, name in enumerate(arguments[len(arguments) - len(defaults) :]):
            yield f"{name} in {where}", defaults[index], Ref(defaults, index)
        yield from self._items(function.__kwdefaults__ or {}, lambda name: f"{name} in {where}")
        yield from self._items(function.__dict__, lambda name: f"{where}.{name}")
        names = _names_in(function.__code__)
        absent = names - function.__globals__.keys()
        self.found._undo.append(lambda: _drop(function.__globals__, absent))
        for name in names & function.__globals__.keys():
            yield from self._variable(function.__module__, function.__globals__, name, names)

    def _variable(self, module: str, variables: dict[str, Any], name: str, names: set[str]) -> Iterator[tuple[str, Any, Ref | None]]:
        value = variables[name]
        if not isinstance(value, types.ModuleType):
            if not isinstance(value, types.FunctionType | type):
                self.found._undo.append(lambda: variables.__setitem__(name, value))
            yield f"{module}.{name}", value, Ref(variables, name)
        elif is_theirs(getattr(value, "__file__", None) or "<"):
            for inner in names & vars(value).keys():
                if not isinstance(vars(value)[inner], types.ModuleType):
                    yield from self._variable(value.__name__, vars(value), inner, names)


def _kind(thing: Any) -> Kind:
    size = len(thing) if isinstance(thing, list | tuple | dict | set | frozenset | collections.deque) else None
    return Kind(thing.__qualname__ if isinstance(thing, types.FunctionType | type) else type(thing).__name__, size)


def _is_theirs(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and is_theirs(file) and not issubclass(kind, enum.Enum)


SHARED_SOURCES = (random.getstate.__self__, np.random.get_state.__self__, torch.default_generator)  # type: ignore[attr-defined]
"""The random sources that everybody shares; a function of theirs that a file imports by name leads to them. :mod:`purity` seeds and
watches them itself."""


@dataclass(frozen=True)
class RandomSource:
    """A random source, by how its state is read and put back."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]

    @classmethod
    def of(cls, thing: Any) -> "RandomSource | None":
        if isinstance(thing, torch.Generator):
            return cls(thing.get_state, thing.set_state)
        if isinstance(thing, np.random.Generator):
            return cls(lambda: copy.deepcopy(thing.bit_generator.state), lambda state: setattr(thing.bit_generator, "state", state))
        if isinstance(thing, np.random.RandomState):
            return cls(thing.get_state, thing.set_state)
        return cls(thing.getstate, thing.setstate) if isinstance(thing, random.Random) else None

    @property
    def seen(self) -> bytes:
        """The state as plain bytes."""
        return pickle.dumps(self.read())


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _names_in(code: types.CodeType) -> set[str]:
    """Of globals and attributes, of functions inside too."""
    return set(code.co_names).union(*(_names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)))


def _as_plain(numbers: Any) -> Any:
    """The content of a numpy array, a bytearray or an array.array: as a tensor, whose shape a message can name, where torch has the type."""
    if isinstance(numbers, np.ndarray):
        with contextlib.suppress(TypeError):
            return torch.from_numpy(numbers)
    return bytes(numbers.tobytes() if hasattr(numbers, "tobytes") else numbers)


def _update(thing: Any, kept: Any) -> None:
    thing.clear()
    thing.update(kept)


def _drop(variables: dict[str, Any], names: set[str]) -> None:
    for name in names:
        variables.pop(name, None)


def _delete_new(kind: type, kept: set[str]) -> None:
    for name in vars(kind).keys() - kept:
        if not name.startswith("__"):
            delattr(kind, name)


def _refill(thing: Any, kept: list[Any]) -> None:
    thing.clear()
    thing.extend(kept)


@torch.no_grad()
def _put_back(tensor: Tensor, kept: Tensor) -> None:
    if tensor.shape != kept.shape or tensor.dtype != kept.dtype:
        tensor.data = kept.clone()
    elif not same(tensor.detach(), kept):
        tensor.data.copy_(kept)
