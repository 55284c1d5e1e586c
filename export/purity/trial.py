"""Runs a network's step repeatedly from a known start, and notes what happens in the first one."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipstep.export.purity.random_generators import seeded, shared_states
from clipstep.export.purity.reachable import snapshot
from clipstep.export.purity.snapshot import Snapshot, same
from clipstep.export.purity.tracing import Operation, OperationRecorder, lines_of_changes
from clipstep.export.source_lines import UNKNOWN

ROOT = "network"
TOLERANCE = 1e-5
"""The largest difference between equal outputs, as a share of the largest output: threads may add numbers in another order."""

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class FirstStep:
    """What was recorded of the first step."""

    outputs: Outputs
    operations: tuple[Operation, ...]
    drawn: tuple[str, ...]
    """The shared random number generators that the step drew from."""
    written: tuple[bool, ...]
    """For each input, whether the step wrote into it."""


class Trial:
    """A network, its step, and the inputs that it is run on: the frames, then the initial states."""

    def __init__(self, network: nn.Module, step: Callable[..., Outputs], inputs: Sequence[Tensor]) -> None:
        self._network, self._step, self.inputs = network, step, tuple(inputs)
        self.initial = self.snapshot()
        """The snapshot before any step."""

    def snapshot(self) -> Snapshot:
        """Take a snapshot of everything that can be reached from the network."""
        return snapshot(self._network, ROOT)

    def run_first(self) -> tuple[Outputs, FirstStep]:
        """Run the first step; return its outputs as the network gave them, and what was recorded of it."""
        with seeded(0):
            before = shared_states()
            with OperationRecorder() as recorder:
                given = [value.clone() for value in self.inputs]
                outputs = self._step(*given)
            drawn = tuple(name for name, state in shared_states().items() if not same(state, before[name]))
        written = tuple(not same(now, old) for now, old in zip(given, self.inputs, strict=True))
        return outputs, FirstStep(_copies(outputs), tuple(recorder.operations), drawn, written)

    def run(self, frames: Tensor | None = None, states: Sequence[Tensor] | None = None) -> Outputs:
        """Run a step on copies of these frames and states, by default those of the trial, and return copies of its outputs."""
        given = self.inputs[1:] if states is None else states
        return _copies(self._step((self.inputs[0] if frames is None else frames).clone(), *(value.clone() for value in given)))

    def run_stream(self, others: Sequence[Tensor]) -> None:
        """Run a step on each of `others`, with the states that the step before returned."""
        states: Sequence[Tensor] | None = None
        for frames in others:
            states = self.run(frames, states)[1 : len(self.inputs)]

    def line_writing_input(self, index: int) -> str:
        """Return the line that writes into the input of that index."""
        self.initial.restore()
        given = [value.clone() for value in self.inputs]
        return lines_of_changes(lambda: self._step(*given), {"input": lambda: given[index]}).get("input", UNKNOWN)

    def line_changing(self, path: str, moment: Snapshot, other: Tensor) -> str:
        """Return the line that changes the value at `path` of the snapshot `moment`, during a step that is followed by one on the frames `other`."""
        self.initial.restore()

        def run() -> None:
            with contextlib.suppress(Exception):
                self.run()
                self.run(other)

        return lines_of_changes(run, {path: probe(moment, path)}).get(path, UNKNOWN)


def probe(moment: Snapshot, path: str) -> Callable[[], Any]:
    """Return a function that reads the present value at a path of a snapshot."""
    ref = moment.at(path).ref
    return ref.get if ref is not None else lambda: None


def differ(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether outputs differ by more than rounding."""
    return len(a) != len(b) or any(not _near(x, y) for x, y in zip(a, b, strict=True))


def _near(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
        return same(a, b)
    if same(a, b):
        return True
    return bool(torch.allclose(a.double(), b.double(), rtol=0, atol=TOLERANCE * float(a.double().nan_to_num().abs().max()), equal_nan=True))


def _copies(outputs: Outputs) -> Outputs:
    return tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in outputs)
