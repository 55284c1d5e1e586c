"""Witnesses of one run of a network: which operations it ran, from which of the user's lines, and at which line something changed."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.torch_internals import TorchDispatchMode, argument_names, tree_leaves
from clipstep.export.purity.snapshot import same
from clipstep.export.source_lines import UNKNOWN, frames_to_theirs, is_theirs, line_of_frame

UNWRITTEN = ("empty", "new_empty", "resize")
"""Operations whose result holds no numbers yet."""


@dataclass(frozen=True)
class Operation:
    """One operation, and the line that it comes from."""

    name: str
    line: str
    random: bool
    """Whether it draws random numbers."""
    dropout: bool
    training: bool
    """Whether it is told to work as in training."""
    numbers: tuple[Tensor, ...] = ()
    """A few sums that tell its results from others, if they were asked for."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation that runs inside; with ``numbers`` also what came out."""

    def __init__(self, *, numbers: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = numbers
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, random = str(func), torch.Tag.nondeterministic_seeded in func.tags
        training = any(told is True and argument in ("train", "training") for argument, told in zip(argument_names(func), args, strict=False))
        if self.numbers or random or training:
            stack = frames_to_theirs()
            dropout = "dropout" in name or any("dropout" in frame.f_code.co_name for frame in stack[:-1])
            sums = _sums(result) if self.numbers and not any(word in name for word in UNWRITTEN) else ()
            line = line_of_frame(stack[-1]) if stack else UNKNOWN
            self.operations.append(Operation(name, line, random, dropout, training, sums))
        return result


def first_difference(a: Recorder, b: Recorder) -> str:
    """The line of the first operation that gave something else in the second run."""
    for one, other in zip(a.operations, b.operations, strict=False):
        if one.name != other.name or len(one.numbers) != len(other.numbers) or not all(map(_close, one.numbers, other.numbers)):
            return other.line
    return UNKNOWN


def lines_of_changes(run: Callable[[], object], probes: Mapping[str, Callable[[], Any]]) -> dict[str, str]:
    """The line of the user's at which what each probe gives first changed while ``run`` ran; those that did not are left out."""
    seen = {name: _kept(probe()) for name, probe in probes.items()}
    found: dict[str, str] = {}
    last = UNKNOWN

    def look() -> None:
        for name in probes.keys() - found.keys():
            if not _unchanged(seen[name], probes[name]()):
                found[name] = last

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal last
        if not is_theirs_cached(frame.f_code.co_filename):
            return None
        look()
        outside = frames_to_theirs(frame.f_back) if event == "return" else [frame]
        last = line_of_frame(outside[-1]) if outside else last
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    look()
    return found


is_theirs_cached = functools.cache(is_theirs)


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else (value, _size(value))


def _unchanged(kept: Any, now: Any) -> bool:
    if isinstance(now, Tensor) or isinstance(kept, Tensor):
        return same(kept, now.detach() if isinstance(now, Tensor) else now)
    return (kept[0] is now or same(kept[0], now)) and kept[1] == _size(now)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict | set | bytearray) or hasattr(value, "popleft") else -1


@torch.no_grad()
def _sums(result: Any) -> tuple[Tensor, ...]:
    """For each tensor its sum, the sum of magnitudes, and a weighted sum that depends on the order of its numbers."""
    return tuple(
        torch.stack([x.sum(), x.abs().sum(), (x * torch.arange(x.numel(), dtype=torch.float64).cos()).sum()])
        for x in (value.detach().double().flatten() for value in tree_leaves(result) if isinstance(value, Tensor) and not value.is_complex())
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=1e-6 * max(1e-30, float(a.nan_to_num().abs().max())), equal_nan=True))
