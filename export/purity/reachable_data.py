"""Finds the values that containers, arrays and objects hold.

Each `of_*` takes an object of one kind and its path, yields the values in it, and adds to `undo` how the object is restored.
"""

import collections
import contextlib
import contextvars
import functools
import itertools
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from clipstep.export.purity.random_generators import RandomGenerator
from clipstep.export.purity.snapshot import PLAIN, Child, Ref
from clipstep.export.purity.undo import Array, Undo
from clipstep.export.source_lines import is_user_class

OPAQUE = {"logging", "torch", "_io", "io", "typing", "abc", "re", "inspect", "importlib", "warnings", "threading", "_thread", "tqdm", "numpy"}
"""Top-level packages whose objects are not looked into: they hold no values of a network."""
REGISTERED = ("_parameters", "_buffers", "_modules")
"""The dictionaries in which an `nn.Module` keeps what was registered."""
GENERATOR_STATE = ".<random state>"
"""Ends the path of the state of a network's own random number generator."""
PICKLED = ".<state>"
"""Ends the path of the pickled state of an object written in C."""


def items(thing: dict[Any, Any], path: Callable[[Any], str], undo: Undo, skip: Sequence[str] = (), *, registered: bool = False) -> Iterator[Child]:
    """Yield the values of a dictionary; `path` gives the path of the value at a key."""
    undo.members(thing)
    for key, value in list(thing.items()):
        if key not in skip:
            yield Child(path(key), value, Ref(thing, key, registered=registered))


def of_dict(thing: dict[Any, Any], path: str, undo: Undo) -> Iterator[Child]:
    yield from items(thing, lambda key: f"{path}[{key!r}]" if isinstance(key, PLAIN) else f"{path}[a {type(key).__name__}]", undo)


def of_list(thing: list[Any] | collections.deque[Any], path: str, undo: Undo) -> Iterator[Child]:
    undo.elements(thing)
    for index, value in enumerate(list(thing)):
        yield Child(f"{path}[{index}]", value, Ref(thing, index))


def of_tuple(thing: tuple[Any, ...], path: str, undo: Undo) -> Iterator[Child]:
    for index, value in enumerate(thing):
        yield Child(f"{path}[{index}]", value, Ref(thing, index))


def of_set(thing: set[Any], path: str, undo: Undo) -> Iterator[Child]:
    undo.members(thing)
    for index, value in enumerate(sorted(thing, key=repr)):
        yield Child(f"{path}{{{index}}}", value)


def of_array(thing: Array, path: str, undo: Undo) -> Iterator[Child]:
    """Yield all elements as one value: a tensor, whose shape a message can name, if torch has the array's type, else bytes."""
    kept = thing.copy() if isinstance(thing, np.ndarray) else thing[:]
    undo.numbers(thing, kept)
    numbers: Any = None
    if isinstance(kept, np.ndarray):
        with contextlib.suppress(TypeError):
            numbers = torch.from_numpy(kept)
    if numbers is None:
        numbers = bytes(kept) if isinstance(kept, bytearray) else kept.tobytes()
    yield Child(f"{path}[:]", numbers)


def of_partial(thing: functools.partial[Any], path: str, undo: Undo) -> Iterator[Child]:
    yield from (Child(f"{path}.{name}", getattr(thing, name)) for name in ("func", "args", "keywords"))


def of_context_variable(thing: contextvars.ContextVar[Any], path: str, undo: Undo) -> Iterator[Child]:
    yield Child(f"{path}.get()", thing.get(None))


def of_random_generator(thing: Any, path: str, undo: Undo) -> Iterator[Child]:
    """Yield the state of a generator; nothing for the shared generators, which the purity check watches separately."""
    generator = RandomGenerator.of(thing)
    if generator is None:
        return
    try:
        kept = generator.read()
    except NotImplementedError:  # random.SystemRandom, which has no state.
        return
    undo.add(lambda: generator.write(kept))
    yield Child(f"{path}{GENERATOR_STATE}", generator.state, Ref(generator, "state", item=False))


def of_object(thing: Any, path: str, undo: Undo) -> Iterator[Child]:
    """Yield the attributes and slots of an object, and its classes if they are the user's."""
    kind = type(thing)
    outside = kind.__module__.partition(".")[0] in OPAQUE and not isinstance(thing, nn.Module | threading.local)
    if isinstance(thing, types.ModuleType) or outside:
        return
    if isinstance(thing, torch.jit.ScriptModule):
        yield from (Child(f"{path}.{name}", tensor) for name, tensor in (*thing.named_parameters(), *thing.named_buffers()))
        return
    attributes = getattr(thing, "__dict__", None)
    if isinstance(attributes, dict):
        inside = []
        if isinstance(thing, nn.Module):
            for name in REGISTERED:
                yield from items(attributes[name], lambda key: f"{path}.{key}", undo, registered=True)
            empty = [name for name, value in attributes.items() if name[0] == "_" and isinstance(value, dict) and not value]
            inside = [*REGISTERED, *empty]
        yield from items(attributes, lambda name: f"{path}.{name}", undo, inside)
    slots = _slots(thing)
    for name in slots:
        yield Child(f"{path}.{name}", getattr(thing, name), undo.value(Ref(thing, name, item=False), getattr(thing, name)))
    yield from (Child(f"{base.__module__}.{base.__qualname__}", base) for base in kind.__mro__ if is_user_class(base))
    if not (isinstance(attributes, dict) or slots or callable(thing)):
        yield from _of_c_object(thing, path)


def _slots(thing: Any) -> list[str]:
    declared = [base.__dict__.get("__slots__", ()) for base in type(thing).__mro__]
    names = [name for slots in declared for name in ((slots,) if isinstance(slots, str) else slots)]
    return [name for name in names if name not in ("__dict__", "__weakref__") and hasattr(thing, name)]


def _of_c_object(thing: Any, path: str) -> Iterator[Child]:
    """Yield the state of an object written in C, such as an iterator, from its repr or from pickling it."""
    if isinstance(thing, itertools.count | itertools.repeat):
        yield Child(f"{path}{PICKLED}", repr(thing))
        return
    with contextlib.suppress(Exception):
        yield Child(f"{path}{PICKLED}", thing.__reduce_ex__(4)[1:])
