"""How all that a snapshot saw is put back as it was."""

import array
import collections
import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipstep.export.purity.snapshot import Ref, same

Array = np.ndarray | array.array | bytearray  # type: ignore[type-arg]


class Undo:
    """Each method notes how one kind of thing is put back as it is now; ``run`` puts everything back."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def run(self) -> None:
        for step in self._steps:
            with contextlib.suppress(AttributeError, TypeError, ValueError, BufferError):  # It may only be read after all.
                step()

    def put(self, ref: Ref, value: Any) -> Ref:
        self.add(lambda: ref.put(value))
        return ref

    def tensor(self, tensor: Tensor, kept: Tensor) -> None:
        self.add(lambda: _put_back(tensor, kept))

    def members(self, thing: dict[Any, Any] | set[Any]) -> None:
        kept: Any = dict(thing) if isinstance(thing, dict) else set(thing)
        self.add(lambda: _refill(thing, thing.update, kept))

    def elements(self, thing: list[Any] | collections.deque[Any]) -> None:
        kept = list(thing)
        self.add(lambda: _refill(thing, thing.extend, kept))

    def numbers(self, thing: Array, kept: Array) -> None:
        everything: Any = ... if isinstance(thing, np.ndarray) else slice(None)
        self.add(lambda: thing.__setitem__(everything, kept))

    def new_variables(self, variables: dict[str, Any], absent: set[str]) -> None:
        """Those of the names ``absent`` that a module may get later are taken away again."""
        self.add(lambda: _drop(variables, absent))

    def new_attributes(self, kind: type) -> None:
        kept = set(vars(kind))
        self.add(lambda: _delete(kind, vars(kind).keys() - kept))


def _refill(thing: Any, fill: Callable[[Any], None], kept: Any) -> None:
    thing.clear()
    fill(kept)


def _drop(variables: dict[str, Any], names: set[str]) -> None:
    for name in names:
        variables.pop(name, None)


@torch.no_grad()
def _put_back(tensor: Tensor, kept: Tensor) -> None:
    if tensor.shape != kept.shape or tensor.dtype != kept.dtype:
        tensor.data = kept.clone()
    elif not same(tensor.detach(), kept):
        tensor.data.copy_(kept)


def _delete(kind: type, names: set[str]) -> None:
    for name in names:
        if not name.startswith("__"):
            delattr(kind, name)
