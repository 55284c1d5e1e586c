"""Restores all values that a snapshot saw."""

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
    """A list of steps that restore values. Each method adds the step that restores one kind of value to what it is now; `run` runs all."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def run(self) -> None:
        for step in self._steps:
            with contextlib.suppress(AttributeError, TypeError, ValueError, BufferError):  # Read-only values.
                step()

    def value(self, ref: Ref, value: Any) -> Ref:
        self.add(lambda: ref.put(value))
        return ref

    def tensor(self, tensor: Tensor, kept: Tensor) -> None:
        self.add(lambda: _restore_tensor(tensor, kept))

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
        """Restore by removing the variables named `absent`, which the module does not have now."""
        self.add(lambda: _remove_variables(variables, absent))

    def new_attributes(self, kind: type) -> None:
        kept = set(vars(kind))
        self.add(lambda: _delete_attributes(kind, vars(kind).keys() - kept))


def _refill(thing: Any, fill: Callable[[Any], None], kept: Any) -> None:
    thing.clear()
    fill(kept)


def _remove_variables(variables: dict[str, Any], names: set[str]) -> None:
    for name in names:
        variables.pop(name, None)


@torch.no_grad()
def _restore_tensor(tensor: Tensor, kept: Tensor) -> None:
    if tensor.shape != kept.shape or tensor.dtype != kept.dtype:
        tensor.data = kept.clone()
    elif not same(tensor.detach(), kept):
        tensor.data.copy_(kept)


def _delete_attributes(kind: type, names: set[str]) -> None:
    for name in names:
        if not name.startswith("__"):
            delattr(kind, name)
