"""Lets a network read numbers out of its own buffers and parameters while torch.export traces it: they are the same in every step.

torch.export takes each of them for unknown, so that `int(self.size)`, `if self.scale > 0` and `x[:, self.mask]` would be refused.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clipstep.export.compat.torch_internals import tree_leaves, tree_map, without_modes
from clipstep.export.unsupported import Unsupported

LARGEST = 2**16
"""The largest tensor, in elements, whose numbers are kept."""
READS: set[Any] = {
    Tensor.item,
    Tensor.tolist,
    Tensor.__bool__,
    Tensor.__int__,
    Tensor.__float__,
    Tensor.__index__,
    torch.equal,
    Tensor.equal,
    torch.allclose,
    Tensor.allclose,
}
"""Functions that return numbers of a tensor."""
PLACES: set[Any] = {torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere, torch.unique, Tensor.unique, torch.bincount, Tensor.bincount}
"""Functions that return tensors whose shapes depend on numbers."""
IN_PLACE = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
DATA, SET_DATA = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]
"""What reads `x.data` of a tensor, and what assigns to it."""
WRITES = {"__setitem__", *(f"__i{name}__" for name in IN_PLACE)}
"""The names of functions that write into their first argument, beside those that end in an underscore."""


class KnownNumbers(TorchFunctionMode):
    """Follows, while a module is traced, the small tensors that depend on its buffers and parameters alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.own = dict(_tensors(module))
        self.numbers = {name: value.detach() for name, value in self.own.items() if value.numel() <= LARGEST}
        self.is_traced = False
        self.known: dict[int, tuple[Tensor, Tensor]] = {}
        """By the identity of a tensor that stands in for another while it is traced: that tensor, so that it lives on, and its numbers."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == DATA:  # torch.export loses what is computed of it.
            func = Tensor.detach
        if func == SET_DATA:
            raise Unsupported("an assignment to the .data of a tensor")
        self._find_stand_ins()
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], self._without_masks(args[1]), *args[2:])
        if _writes(func, kwargs):
            if any(id(value) in self.known for value in (*args[:1], *tree_leaves(kwargs.get("out")))):
                self.known = {}  # The tensor may be a view of others.
            return func(*args, **kwargs)
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if not tensors or not all(id(value) in self.known for value in tensors):
            return func(*args, **kwargs)
        with without_modes():
            numbers = func(*tree_map(self._numbers, args), **tree_map(self._numbers, kwargs))
        if func in READS:
            return numbers
        results = tree_map(_constant, numbers) if func in PLACES else func(*args, **kwargs)
        for result, value in zip(tree_leaves(results), tree_leaves(numbers), strict=True):
            if isinstance(result, Tensor) and isinstance(value, Tensor) and value.numel() <= LARGEST:
                self.known[id(result)] = (result, value)
        return results

    def _find_stand_ins(self) -> None:
        """Once, look which tensors torch.export has put into the module in place of its own. A network may put others there while it runs.

        It calls thousands of functions before it does: until the first tensor is another, no other is looked at.
        """
        if self.is_traced or any(self._tensor(name) is value for name, value in islice(self.own.items(), 1)):
            return
        found = dict(_tensors(self.module))
        self.is_traced = all(value is not self.own.get(name) for name, value in found.items())
        if self.is_traced:
            self.known = {id(value): (value, self.numbers[name]) for name, value in found.items() if name in self.numbers}

    def _tensor(self, name: str) -> Any:
        """Return the tensor of the module that has that name now; None if the network has deleted it."""
        owner, _, attribute = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), attribute, None)

    def _numbers(self, value: Any) -> Any:
        return self.known[id(value)][1] if isinstance(value, Tensor) else value

    def _without_masks(self, index: Any) -> Any:
        """Return an index with the places at which known masks are true, as PyTorch takes them too, in place of the masks."""
        parts: list[Any] = []
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, Tensor) and part.dtype == torch.bool and part.ndim and id(part) in self.known:
                with without_modes():
                    places = self._numbers(part).nonzero(as_tuple=True)
                parts += map(_constant, places)
            else:
                parts.append(part)
        return tuple(parts) if isinstance(index, tuple) or len(parts) > 1 else parts[0]


def _constant(numbers: Tensor) -> Tensor:
    with without_modes():
        listed = numbers.tolist()
    return torch.tensor(listed, dtype=numbers.dtype).reshape(numbers.shape)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_buffers()
    yield from module.named_parameters()


def _writes(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    return name in WRITES or (name.endswith("_") and not name.endswith("__")) or kwargs.get("out") is not None
