"""Takes a snapshot: a traversal of everything that can be reached from a network.

It goes through modules, attributes, containers and plain objects, and through the user's classes and functions: their closures, their
default arguments, and the global variables that they name.
"""

import array
import collections
import contextvars
import functools
import random
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipstep.export.purity import reachable_code as code
from clipstep.export.purity import reachable_data as data
from clipstep.export.purity.snapshot import PLAIN, Child, Entry, Kind, Snapshot
from clipstep.export.purity.undo import Undo

MOST_ENTRIES = 200_000
"""The traversal ends after this many values."""
SIZED = (list, tuple, dict, set, frozenset, collections.deque)
Finder = Callable[[Any, str, Undo], Iterator[Child]]
FINDERS: tuple[tuple[Any, Finder], ...] = (
    (dict, data.of_dict),
    (list | collections.deque, data.of_list),
    (tuple, data.of_tuple),
    (set, data.of_set),
    (np.ndarray | array.array | bytearray, data.of_array),
    (types.FunctionType, code.of_function),
    (types.MethodType, code.of_method),
    (functools.partial, data.of_partial),
    (type, code.of_class),
    (types.GeneratorType, code.of_generator),
    (torch.Generator | np.random.Generator | np.random.RandomState | random.Random, data.of_random_generator),
    (contextvars.ContextVar, data.of_context_variable),
    (object, data.of_object),
)
"""The finder of the values in an object, by its type; the first that fits is taken."""


@torch.no_grad()
def snapshot(root: object, name: str) -> Snapshot:
    """Take a snapshot of everything that can be reached from `root`, whose path is `name`."""
    return _Traversal().of(root, name)


class _Traversal:
    """A breadth-first traversal, so that each object gets its shortest path."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._undo = Undo()
        self._seen: dict[int, Any] = {}  # The objects are kept alive, so that no id is used twice.
        self._copies: dict[int, Tensor] = {}
        self._next: collections.deque[Child] = collections.deque()

    def of(self, root: object, name: str) -> Snapshot:
        self._next.append(Child(name, root))
        while self._next and len(self._entries) < MOST_ENTRIES:
            self._visit(self._next.popleft())
        return Snapshot(self._entries, self._undo.run)

    def _visit(self, child: Child) -> None:
        path, thing, ref = child
        if isinstance(thing, Tensor):
            self._entries[path] = Entry(self._copy(thing), ref)
        elif isinstance(thing, PLAIN):
            self._entries[path] = Entry(thing, ref)
        elif isinstance(thing, weakref.ref):
            self._next.append(Child(path, thing()))
        else:
            self._entries[path] = Entry(_kind(thing), ref)
            if id(thing) not in self._seen:
                self._seen[id(thing)] = thing
                find = next(find for types_, find in FINDERS if isinstance(thing, types_))
                self._next.extend(find(thing, path, self._undo))

    def _copy(self, tensor: Tensor) -> Tensor | Kind:
        """Return a copy of a tensor: the same copy each time that the traversal meets the tensor."""
        if nn.parameter.is_lazy(tensor) or tensor.is_meta:
            return Kind("tensor without numbers")
        if id(tensor) not in self._seen:
            self._seen[id(tensor)] = tensor
            self._copies[id(tensor)] = tensor.detach().clone()
            self._undo.tensor(tensor, self._copies[id(tensor)])
        return self._copies[id(tensor)]


def _kind(thing: Any) -> Kind:
    name = thing.__qualname__ if isinstance(thing, types.FunctionType | type) else type(thing).__name__
    return Kind(name, len(thing) if isinstance(thing, SIZED) else None)
