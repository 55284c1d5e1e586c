"""Whether a network's step is pure: the same frames and states give the same outputs, whatever frames passed before.

Artifacts hold a network as it computes once. Memory inside the module, or chance, would be lost in them without a word, so that
both are looked for in the eager network, by what it computes and by what changes in all that can be reached from it.
"""

import contextlib
import functools
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipstep.export.poison import read_by
from clipstep.export.reachable import RANDOM, Snapshot, changed, outermost, place, same, snapshot
from clipstep.export.source import describe_error, line_of_error
from clipstep.export.witness import Operation, Recorder, first_difference, lines_of_changes
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed
from clipstep.training.generators import restored_generators

ROOT = "network"
TOLERANCE = 1e-5
"""Relative, of an output: threads may sum in another order."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "_u", "_v", "weight_u", "weight_v")
"""Of torch's batch and spectral norms, which change in training."""
PAGE = "docs/your-own-network.md"
SHOWN = 3
UNKNOWN = "an unknown line"

Outputs = tuple[Tensor, ...]


class Purity:
    """One network's trial. :meth:`first` runs the step once, :meth:`check` then says whether it is pure."""

    def __init__(self, network: nn.Module, step: Callable[..., Outputs], inputs: Sequence[Tensor]) -> None:
        """``step`` runs the network on ``inputs``: frames, and the states before a video."""
        self._network, self._step, self._inputs = network, step, inputs
        self._cold = snapshot(network, ROOT)
        self._operations: list[Operation] = []
        self._drawn: list[str] = []
        self._written: list[bool] = []
        self._first: Outputs = ()

    def first(self) -> Outputs:
        """What the step gives on its inputs, the first time."""
        with own_chance(0):
            before = _chance()
            with Recorder() as recorder:
                given = [value.clone() for value in self._inputs]
                outputs = self._step(*given)
            self._written = [not same(now, old) for now, old in zip(given, self._inputs, strict=True)]
            self._first = _copies(outputs)
            self._operations = recorder.operations
            self._drawn = [name for name, state in _chance().items() if not same(state, before[name])]
        return outputs

    def written(self, names: Sequence[str]) -> tuple[str, str] | None:
        """The name of the first input that the step wrote into, and the line that did; None if it wrote into none."""
        if True not in self._written:
            return None
        index = self._written.index(True)
        self._cold.restore()
        given = [value.clone() for value in self._inputs]
        lines = lines_of_changes(lambda: self._step(*given), {"input": lambda: given[index]})
        return names[index], lines.get("input", UNKNOWN)

    def check(self, others: Sequence[Tensor]) -> None:
        """Runs the step on other frames and again on its inputs. The network keeps what it computes once for all; it is put back
        as it was before an error.

        Raises:
            ClipstepError: the network keeps memory, is in training mode, or is not deterministic.
        """
        with own_chance(1):
            try:
                self._check(others)
            except ClipstepError:
                self._cold.restore()
                raise

    def _check(self, others: Sequence[Tensor]) -> None:
        warm = snapshot(self._network, ROOT)
        early = changed(self._cold, warm)
        self._refuse_training(early, warm)
        self._refuse_chance(early)
        late, again = self._later(others, warm)
        moving = changed(warm, late)
        pure = not _differ(self._first, again)
        if pure and not early and not moving:
            return
        self._refuse_statistics(moving, late)
        swapped, after = self._in_another_order(others[0])
        pure = pure and not _differ(self._first, swapped)
        depend = outermost((*moving, *changed(warm, after)))
        reader = self._reader(depend, late, warm) if depend else None
        if pure and reader is None:
            return
        if reader is None:
            raise self._unexplained(others[0])
        raise self._memory(depend, warm, late, others[0], None if not pure else reader)

    def _run(self, frames: Tensor, states: Sequence[Tensor] | None = None) -> Outputs:
        given = [value.clone() for value in (self._inputs[1:] if states is None else states)]
        return _copies(self._step(frames.clone(), *given))

    def _later(self, others: Sequence[Tensor], warm: Snapshot) -> tuple[Snapshot, Outputs]:
        """What is there after a stream of other frames, and what the step then gives on its inputs."""
        try:
            states: Sequence[Tensor] | None = None
            for frames in others:
                _, *states = self._run(frames, states)
            return snapshot(self._network, ROOT), self._run(self._inputs[0])
        except Exception as error:  # Whatever a user's network raises.
            late = snapshot(self._network, ROOT)
            paths = changed(warm, late) or changed(self._cold, late)
            if paths:
                raise self._memory(paths, warm, late, others[0], None) from error
            raise ClipstepError(
                "the network cannot run another step", got=describe_error(error), fix=f"it comes from {line_of_error(error)}"
            ) from error

    def _in_another_order(self, frames: Tensor) -> tuple[Outputs, Snapshot]:
        """What the step gives after other frames came first of all, and what is there after these: what is computed once for all
        does not depend on them."""
        self._cold.restore()
        with contextlib.suppress(Exception):  # If it only runs in one order, it remembers.
            self._run(frames)
            other = snapshot(self._network, ROOT)
            return self._run(self._inputs[0]), other
        return (), snapshot(self._network, ROOT)

    def _reader(self, paths: Sequence[str], late: Snapshot, warm: Snapshot) -> str | None:
        """Where one of the places that change is read; None if they are only ever written, so that they decide nothing."""
        refs = [place(late, path).ref for path in paths]
        warm.restore()
        line = read_by([ref for ref in refs if ref is not None], lambda: not _differ(self._first, self._run(self._inputs[0])))
        warm.restore()
        known = all(ref is not None and not ref.registered for ref in refs)
        return line if known else line or UNKNOWN

    def _refuse_training(self, early: Sequence[str], warm: Snapshot) -> None:
        switched = [path for path in early if path.endswith(".training") and place(warm, path).value is True]
        if switched:
            line = self._line(switched[0], warm, self._inputs[0])
            names = listed([path.removesuffix(".training") for path in switched], SHOWN)
            raise ClipstepError(
                f"the network is in training mode: {line}", got=f"forward switches {names} to training", fix="call train() outside of forward"
            )

    def _refuse_chance(self, early: Sequence[str]) -> None:
        drawing = [operation for operation in self._operations if operation.random]
        own = [path for path in early if RANDOM in path]
        if drawing and drawing[0].dropout:
            raise ClipstepError(
                f"the network is not deterministic, because dropout is in training mode: {drawing[0].line}", got=drawing[0].name,
                fix="give F.dropout training=self.training; eval() reaches a module in an nn.ModuleList, in a plain list it does not",
            )  # fmt: skip
        if drawing:
            raise ClipstepError(
                f"the network is not deterministic: {drawing[0].line}", got=f"random numbers of {drawing[0].name} in forward",
                fix="draw them once in __init__ and register them as a buffer",
            )  # fmt: skip
        if own or self._drawn:
            self._cold.restore()
            probes: dict[str, Callable[[], Any]] = {name: functools.partial(_state_of, name) for name in self._drawn}
            probes |= {path: self._probe(path, self._cold) for path in own}
            line = next(iter(lines_of_changes(lambda: self._run(self._inputs[0]), probes).values()), UNKNOWN)
            raise ClipstepError(
                f"the network is not deterministic: {line}", got=f"numbers from {(*self._drawn, *own)[0]}", fix="draw them once in __init__"
            )

    def _refuse_statistics(self, paths: Sequence[str], late: Snapshot) -> None:
        for path in paths:
            owner, _, name = path.rpartition(".")
            told = next((operation.line for operation in self._operations if operation.training), None)
            if name in STATISTICS and (told or place(late, f"{owner}.training").value is True):
                raise ClipstepError(
                    f"the network is in training mode: {told or self._line(path, late, self._inputs[0])}",
                    got=f"{owner} changes its {name} in each step", fix="let eval() reach it; give F.batch_norm training=self.training",
                )  # fmt: skip

    def _memory(self, paths: Sequence[str], warm: Snapshot, late: Snapshot, other: Tensor, reader: str | None) -> ClipstepError:
        paths = sorted(paths, key=lambda path: not isinstance(place(late, path).value, Tensor))
        path, more = paths[0], f" (also {listed(paths[1:], SHOWN)})" * (len(paths) > 1)
        old, new, last = (place(moment, path) for moment in (self._cold, warm, late))
        new = last if same(old.value, new.value) else new
        numbers = isinstance(old.value, Tensor) and str(old) == str(new)
        line = self._line(path, late, other)
        return ClipstepError(
            f"the network keeps memory in {path}{more}, which no artifact would have",
            got=f"{old} before, {'other numbers' if numbers else new} after a step; written at {line}"
            + (f", read at {reader}" if reader not in (None, UNKNOWN) else ""),
            expected="the same outputs for the same frames and states, whatever passed before",
            fix=_recipe(path, new.value if str(new) == str(last) else None, len(self._inputs) > 1),
        )

    def _unexplained(self, other: Tensor) -> ClipstepError:
        """Chance, or memory, where it cannot be seen."""
        runs = []
        for _ in range(2):
            with Recorder(numbers=True) as recorder:
                self._run(self._inputs[0])
            runs.append(recorder)
            self._run(other)
        return ClipstepError(
            f"the network is not deterministic, or keeps memory outside of it: {first_difference(*runs)}",
            got="other outputs for the same frames and states after other frames",
            fix=f"take what it remembers as a state and return the next one: {PAGE}",
        )  # fmt: skip

    def _line(self, path: str, after: Snapshot, other: Tensor) -> str:
        self._cold.restore()

        def run() -> None:
            with contextlib.suppress(Exception):
                self._run(self._inputs[0])
                self._run(other)

        return lines_of_changes(run, {path: self._probe(path, after)}).get(path, UNKNOWN)

    def _probe(self, path: str, snapshot: Snapshot) -> Callable[[], Any]:
        ref = place(snapshot, path).ref
        return ref.get if ref is not None else lambda: None


@contextlib.contextmanager
def own_chance(seed: int) -> Iterator[None]:
    """The random sources that everybody shares, seeded inside, and put back as they were."""
    with restored_generators():
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


def _chance() -> dict[str, Any]:
    """The states of those sources."""
    return {"torch": torch.get_rng_state(), "numpy.random": pickle.dumps(np.random.get_state()), "random": random.getstate()}


def _state_of(name: str) -> Any:
    return _chance()[name]


def _copies(outputs: Outputs) -> Outputs:
    return tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in outputs)


def _differ(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) != len(b) or any(not _near(x, y) for x, y in zip(a, b, strict=True))


def _near(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
        return same(a, b)
    if same(a, b):
        return True
    return bool(torch.allclose(a.double(), b.double(), rtol=0, atol=TOLERANCE * float(a.double().nan_to_num().abs().max()), equal_nan=True))


def _recipe(path: str, value: Any, states: bool) -> str:
    name = path.partition(" in ")[0].rpartition(".")[2].partition("[")[0]
    if isinstance(value, Tensor) and 1 <= value.ndim <= 4:
        start = f"torch.zeros({', '.join(map(str, value.shape))})"
    else:
        start = "torch.zeros(1, 1)" if isinstance(value, int | float) else "a tensor of a fixed shape that holds all of it"
    inputs = f"frames, *states, {name}" if states else f"frames, {name}"
    outputs = f"(logits, {'*next states, ' * states}next {name})"
    return f'make it a state: forward({inputs}) returns {outputs}, and initial_states() has "{name}": {start}; see {PAGE}'
