"""What can be reached from a network: its tensors and everything in Python's objects that hang off it, by path.

That is modules, their attributes, containers and plain objects; the classes and functions of the user's that these run, with what they
enclose, their default arguments, and the variables of their modules that they name.
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
from clipstep.export.purity.snapshot import PLAIN, Child, Kind, Place, Snapshot
from clipstep.export.purity.undo import Undo

MOST = 200_000
"""Places that are looked at."""
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
    (torch.Generator | np.random.Generator | np.random.RandomState | random.Random, data.of_random_source),
    (contextvars.ContextVar, data.of_context_variable),
    (object, data.of_object),
)
"""What finds the values in a thing: the first whose types fit."""


@torch.no_grad()
def snapshot(root: object, name: str) -> Snapshot:
    """All that can be reached from ``root``, whose path is ``name``."""
    return _Walk().of(root, name)


class _Walk:
    """Breadth first, so that a thing is known by its shortest path."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._undo = Undo()
        self._seen: dict[int, Any] = {}  # The things themselves too: no id is used twice while they are kept alive.
        self._copies: dict[int, Tensor] = {}
        self._next: collections.deque[Child] = collections.deque()

    def of(self, root: object, name: str) -> Snapshot:
        self._next.append(Child(name, root))
        while self._next and len(self._places) < MOST:
            self._visit(self._next.popleft())
        return Snapshot(self._places, self._undo.run)

    def _visit(self, child: Child) -> None:
        path, thing, ref = child
        if isinstance(thing, Tensor):
            self._places[path] = Place(self._copy(thing), ref)
        elif isinstance(thing, PLAIN):
            self._places[path] = Place(thing, ref)
        elif isinstance(thing, weakref.ref):
            self._next.append(Child(path, thing()))
        else:
            self._places[path] = Place(_kind(thing), ref)
            if id(thing) not in self._seen:
                self._seen[id(thing)] = thing
                find = next(find for types_, find in FINDERS if isinstance(thing, types_))
                self._next.extend(find(thing, path, self._undo))

    def _copy(self, tensor: Tensor) -> Tensor | Kind:
        """The tensor's numbers as they are now."""
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
