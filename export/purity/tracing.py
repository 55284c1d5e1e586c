"""Records one run of a network: the operations that it ran, with the user's lines that called them, and the lines at which values changed."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.torch_internals import OpOverload, TorchDispatchMode, argument_names, draws_random_numbers, tree_leaves
from clipstep.export.purity.snapshot import same
from clipstep.export.source_lines import UNKNOWN, is_user_file, line_of_frame, stack_to_user_code
from clipstep.runtime.errors import ClipstepError

UNINITIALISED = ("empty", "new_empty", "resize")
"""Operations whose result is uninitialised memory, which must not be compared."""


@dataclass(frozen=True)
class Operation:
    """An operation that ran, and the user's line that called it."""

    name: str
    line: str
    random: bool
    """Whether it draws random numbers."""
    dropout: bool
    training: bool
    """Whether it was called with `training=True` (or `train=True`)."""
    checksums: tuple[Tensor, ...] = ()
    """Checksums of its results, if they were asked for."""


class OperationRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the random and training-mode operations that run inside; with `checksums` every operation, and a checksum of its results."""

    supports_higher_order_operators = True

    def __init__(self, *, checksums: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.checksums = checksums
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not isinstance(func, OpOverload):
            stack = stack_to_user_code()
            raise ClipstepError(
                f"no lowering for torch's {func}, which takes functions",
                expected="operators on tensors, such as torch.where in place of torch.cond",
                fix=f"it comes from {line_of_frame(stack[-1]) if stack else UNKNOWN}",
            )
        result = func(*args, **(kwargs or {}))
        name, random = str(func), draws_random_numbers(func, args, kwargs or {})
        named = zip(argument_names(func), args, strict=False)
        training = any(value is True and argument in ("train", "training") for argument, value in named)
        if self.checksums or random or training:
            stack = stack_to_user_code()
            dropout = "dropout" in name or any("dropout" in frame.f_code.co_name for frame in stack[:-1])
            sums = _checksums(result) if self.checksums and not any(word in name for word in UNINITIALISED) else ()
            line = line_of_frame(stack[-1]) if stack else UNKNOWN
            self.operations.append(Operation(name, line, random, dropout, training, sums))
        return result


def first_difference(a: OperationRecorder, b: OperationRecorder) -> str:
    """Return the line of the first operation whose results differ between two runs."""
    for one, other in zip(a.operations, b.operations, strict=False):
        if one.name != other.name or len(one.checksums) != len(other.checksums) or not all(map(_close, one.checksums, other.checksums)):
            return other.line
    return UNKNOWN


def lines_of_changes(run: Callable[[], object], probes: Mapping[str, Callable[[], Any]]) -> dict[str, str]:
    """Return, by the name of each probe, the user's line at which the value that the probe reads first changed while `run` ran.

    Probes whose value did not change are left out.
    """
    before = {name: _kept(probe()) for name, probe in probes.items()}
    found: dict[str, str] = {}
    last = UNKNOWN

    def look() -> None:
        for name in probes.keys() - found.keys():
            if not _unchanged(before[name], probes[name]()):
                found[name] = last

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal last
        if not _is_user_file(frame.f_code.co_filename):
            return None
        look()
        callers = stack_to_user_code(frame.f_back) if event == "return" else [frame]
        last = line_of_frame(callers[-1]) if callers else last
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(previous)
    look()
    return found


_is_user_file = functools.cache(is_user_file)


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else (value, _size(value))


def _unchanged(kept: Any, now: Any) -> bool:
    if isinstance(now, Tensor) or isinstance(kept, Tensor):
        return same(kept, now.detach() if isinstance(now, Tensor) else now)
    return (kept[0] is now or same(kept[0], now)) and kept[1] == _size(now)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict | set | bytearray) or hasattr(value, "popleft") else -1


@torch.no_grad()
def _checksums(result: Any) -> tuple[Tensor, ...]:
    """Return for each tensor its sum, the sum of its magnitudes, and a weighted sum that depends on the order of its numbers."""
    return tuple(
        torch.stack([x.sum(), x.abs().sum(), (x * torch.arange(x.numel(), dtype=torch.float64).cos()).sum()])
        for x in (value.detach().double().flatten() for value in tree_leaves(result) if isinstance(value, Tensor) and not value.is_complex())
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=1e-6 * max(1e-30, float(a.nan_to_num().abs().max())), equal_nan=True))
