"""Decides whether a network's step is pure: the same frames and states give the same outputs, whatever the network was run on before.

The check runs the eager network, compares its outputs, and compares snapshots of everything that can be reached from it. A value that
changes is no memory if nothing that decides the outputs ever reads it, such as a counter of calls, or if it is computed once and then
stays, such as a cached grid.
"""

import contextlib
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from clipstep.export.purity.errors import memory_error, refuse_random_numbers, refuse_statistics, refuse_training, unexplained_error
from clipstep.export.purity.random_generators import seeded
from clipstep.export.purity.read_detection import reader_of
from clipstep.export.purity.snapshot import Snapshot, changed, outermost
from clipstep.export.purity.trial import FirstStep, Outputs, Trial, differ
from clipstep.export.source_lines import UNKNOWN, describe_error, line_of_error
from clipstep.runtime.errors import ClipstepError


class PurityCheck:
    """The purity check of one network: `run_first` runs its step for the first time, `check` then decides."""

    _first: FirstStep

    def __init__(self, network: nn.Module, step: Callable[..., Outputs], inputs: Sequence[Tensor]) -> None:
        """`step` runs the network on `inputs`: the frames, then the initial states."""
        self._trial = Trial(network, step, inputs)

    def run_first(self) -> Outputs:
        """Run the step on its inputs for the first time, and return its outputs."""
        outputs, self._first = self._trial.run_first()
        return outputs

    def written_input(self, names: Sequence[str]) -> tuple[str, str] | None:
        """Return the name of the first input that the step wrote into, and the line that did it; None if it wrote into none."""
        if True not in self._first.written:
            return None
        index = self._first.written.index(True)
        return names[index], self._trial.line_writing_input(index)

    def check(self, others: Sequence[Tensor]) -> None:
        """Run the step on other frames, then again on its inputs, and check that its outputs stayed the same.

        Values that the network computes once and keeps are left in it. Before an error is raised, the network is restored.

        Raises:
            ClipstepError: the network keeps memory, is in training mode, or is not deterministic.
        """
        with seeded(1):
            try:
                self._check(others)
            except ClipstepError:
                self._trial.initial.restore()
                raise

    def _check(self, others: Sequence[Tensor]) -> None:
        trial, first = self._trial, self._first
        after_first = trial.snapshot()
        changed_first = changed(trial.initial, after_first)
        refuse_training(trial, changed_first, after_first)
        refuse_random_numbers(trial, first, changed_first)
        after_stream, again = self._run_stream(others, after_first)
        changed_later = changed(after_first, after_stream)
        pure = not differ(first.outputs, again)
        if pure and not changed_first and not changed_later:
            return
        refuse_statistics(trial, first, changed_later, after_stream)
        after_swap, swapped = self._run_swapped(others[0])
        pure = pure and not differ(first.outputs, swapped)
        suspects = outermost((*changed_later, *changed(after_first, after_swap)))
        reader = self._reader(suspects, after_stream, after_first) if suspects else None
        if pure and reader is None:
            return
        if reader is None:
            raise unexplained_error(trial, others[0])
        raise memory_error(trial, suspects, after_first, after_stream, others[0], reader if pure else None)

    def _run_stream(self, others: Sequence[Tensor], after_first: Snapshot) -> tuple[Snapshot, Outputs]:
        """Run a stream of other frames; return a snapshot after it, and the outputs that the step then gives for its inputs."""
        try:
            self._trial.run_stream(others)
            return self._trial.snapshot(), self._trial.run()
        except Exception as error:  # User code may raise anything.
            after_stream = self._trial.snapshot()
            paths = changed(after_first, after_stream) or changed(self._trial.initial, after_stream)
            if paths:
                raise memory_error(self._trial, paths, after_first, after_stream, others[0], None) from error
            raise ClipstepError(
                "the network cannot run another step", got=describe_error(error), fix=f"it comes from {line_of_error(error)}"
            ) from error

    def _run_swapped(self, frames: Tensor) -> tuple[Snapshot, Outputs]:
        """From the initial state, run other frames first and the inputs second; return a snapshot between the two, and the second outputs.

        A value that is computed once, whatever the frames, is the same in this order as in the usual one.
        """
        self._trial.initial.restore()
        with contextlib.suppress(Exception):  # A network that fails in this order has memory: no outputs are returned below.
            self._trial.run(frames)
            return self._trial.snapshot(), self._trial.run()
        return self._trial.snapshot(), ()

    def _reader(self, paths: Sequence[str], after_stream: Snapshot, after_first: Snapshot) -> str | None:
        """Return the line that reads one of the changed values; None if they are only ever written, so that no output depends on them."""
        refs = [after_stream.at(path).ref for path in paths]
        after_first.restore()
        line = reader_of([ref for ref in refs if ref is not None], lambda: not differ(self._first.outputs, self._trial.run()))
        after_first.restore()
        known = all(ref is not None and not ref.registered for ref in refs)
        return line if known else line or UNKNOWN
