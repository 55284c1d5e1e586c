"""Whether a network's step is pure: the same frames and states give the same outputs, whatever frames passed before.

Artifacts hold a network as it computes once. Memory inside the module, or chance, would be lost in them without a word. Both are
looked for in the eager network, by what it computes and by what changes in all that can be reached from it.
"""

import contextlib
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from clipstep.export.purity.errors import memory_error, refuse_chance, refuse_statistics, refuse_training, unexplained_error
from clipstep.export.purity.random_generators import seeded
from clipstep.export.purity.read_detection import read_by
from clipstep.export.purity.snapshot import Snapshot, changed, outermost
from clipstep.export.purity.trial import FirstStep, Outputs, Trial, differ
from clipstep.export.source_lines import UNKNOWN, describe_error, line_of_error
from clipstep.runtime.errors import ClipstepError


class Purity:
    """Whether one network's step is pure: ``first`` runs it once, ``check`` then decides."""

    _first: FirstStep

    def __init__(self, network: nn.Module, step: Callable[..., Outputs], inputs: Sequence[Tensor]) -> None:
        """``step`` runs the network on ``inputs``: frames, and the states before a video."""
        self._trial = Trial(network, step, inputs)

    def first(self) -> Outputs:
        """What the step gives on its inputs, the first time."""
        outputs, self._first = self._trial.first()
        return outputs

    def written(self, names: Sequence[str]) -> tuple[str, str] | None:
        """The name of the first input that the step wrote into, and the line that did; None if it wrote into none."""
        if True not in self._first.written:
            return None
        index = self._first.written.index(True)
        return names[index], self._trial.line_writing_input(index)

    def check(self, others: Sequence[Tensor]) -> None:
        """Runs the step on other frames and again on its inputs. The network keeps what it computes once for all; it is put back
        as it was before an error.

        Raises:
            ClipstepError: the network keeps memory, is in training mode, or is not deterministic.
        """
        with seeded(1):
            try:
                self._check(others)
            except ClipstepError:
                self._trial.cold.restore()
                raise

    def _check(self, others: Sequence[Tensor]) -> None:
        trial, first = self._trial, self._first
        warm = trial.now()
        early = changed(trial.cold, warm)
        refuse_training(trial, early, warm)
        refuse_chance(trial, first, early)
        late, again = self._later(others, warm)
        moving = changed(warm, late)
        pure = not differ(first.outputs, again)
        if pure and not early and not moving:
            return
        refuse_statistics(trial, first, moving, late)
        after, swapped = self._in_another_order(others[0])
        pure = pure and not differ(first.outputs, swapped)
        depend = outermost((*moving, *changed(warm, after)))
        reader = self._reader(depend, late, warm) if depend else None
        if pure and reader is None:
            return
        if reader is None:
            raise unexplained_error(trial, others[0])
        raise memory_error(trial, depend, warm, late, others[0], reader if pure else None)

    def _later(self, others: Sequence[Tensor], warm: Snapshot) -> tuple[Snapshot, Outputs]:
        """What is there after a stream of other frames, and what the step then gives on its inputs."""
        try:
            self._trial.stream(others)
            return self._trial.now(), self._trial.run()
        except Exception as error:  # Whatever a user's network raises.
            late = self._trial.now()
            paths = changed(warm, late) or changed(self._trial.cold, late)
            if paths:
                raise memory_error(self._trial, paths, warm, late, others[0], None) from error
            raise ClipstepError(
                "the network cannot run another step", got=describe_error(error), fix=f"it comes from {line_of_error(error)}"
            ) from error

    def _in_another_order(self, frames: Tensor) -> tuple[Snapshot, Outputs]:
        """The same after other frames were the first of all: what is computed once for all does not depend on them."""
        self._trial.cold.restore()
        with contextlib.suppress(Exception):  # A network that runs in one order only remembers.
            self._trial.run(frames)
            return self._trial.now(), self._trial.run()
        return self._trial.now(), ()

    def _reader(self, paths: Sequence[str], late: Snapshot, warm: Snapshot) -> str | None:
        """The line that reads one of the places which change; None if they are only ever written, so that they decide nothing."""
        refs = [late.at(path).ref for path in paths]
        warm.restore()
        line = read_by([ref for ref in refs if ref is not None], lambda: not differ(self._first.outputs, self._trial.run()))
        warm.restore()
        known = all(ref is not None and not ref.registered for ref in refs)
        return line if known else line or UNKNOWN
