"""The errors for a step that is not pure: training mode, random numbers or memory, each with its place, its line, and what to do."""

import keyword
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from clipstep.export.purity.random_generators import shared_states
from clipstep.export.purity.reachable_data import GENERATOR_STATE
from clipstep.export.purity.snapshot import Snapshot, same
from clipstep.export.purity.tracing import OperationRecorder, first_difference, lines_of_changes
from clipstep.export.purity.trial import FirstStep, Trial, probe
from clipstep.export.source_lines import UNKNOWN
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "_u", "_v", "weight_u", "weight_v")
"""The buffers that torch's batch and spectral norms update in training mode."""
PAGE = "docs/your-own-network.md"
SHOWN = 3


def refuse_training(trial: Trial, paths: Sequence[str], after_first: Snapshot) -> None:
    """Refuse a network that switches a module to training mode.

    Raises:
        ClipstepError: the first step, which changed the values at `paths`, did so.
    """
    switched = [path for path in paths if path.endswith(".training") and after_first.at(path).value is True]
    if switched:
        line = trial.line_changing(switched[0], after_first, trial.inputs[0])
        names = listed([path.removesuffix(".training") for path in switched], SHOWN)
        raise ClipstepError(
            f"the network is in training mode: {line}", got=f"forward switches {names} to training", fix="call train() outside of forward"
        )


def refuse_random_numbers(trial: Trial, first: FirstStep, paths: Sequence[str]) -> None:
    """Refuse a network that draws random numbers.

    Raises:
        ClipstepError: the first step, which changed the values at `paths`, drew some: by an operation of torch, from a shared generator, or
            from a generator of the network's own.
    """
    drawing = next((operation for operation in first.operations if operation.random), None)
    if drawing is not None and drawing.dropout:
        raise ClipstepError(
            f"the network is not deterministic, because dropout is in training mode: {drawing.line}",
            got=drawing.name,
            fix="give F.dropout training=self.training; eval() reaches a module in an nn.ModuleList, in a plain list it does not",
        )
    if drawing is not None:
        raise ClipstepError(
            f"the network is not deterministic: {drawing.line}",
            got=f"random numbers of {drawing.name} in forward",
            fix="draw them once in __init__ and register them as a buffer",
        )
    generators = [*first.drawn, *(path for path in paths if GENERATOR_STATE in path)]
    if generators:
        trial.initial.restore()
        probes = {name: partial(_shared_state, name) if name in first.drawn else probe(trial.initial, name) for name in generators}
        line = next(iter(lines_of_changes(trial.run, probes).values()), UNKNOWN)
        raise ClipstepError(f"the network is not deterministic: {line}", got=f"numbers from {generators[0]}", fix="draw them once in __init__")


def refuse_statistics(trial: Trial, first: FirstStep, paths: Sequence[str], after_stream: Snapshot) -> None:
    """Refuse a network with a normalisation in training mode.

    Raises:
        ClipstepError: one of the values at `paths`, which every step changes, is a running statistic of such a normalisation.
    """
    line = next((operation.line for operation in first.operations if operation.training), None)
    for path in paths:
        owner, _, name = path.rpartition(".")
        if name in STATISTICS and (line or after_stream.at(f"{owner}.training").value is True):
            raise ClipstepError(
                f"the network is in training mode: {line or trial.line_changing(path, after_stream, trial.inputs[0])}",
                got=f"{owner} changes its {name} in each step",
                fix="let eval() reach it; give F.batch_norm training=self.training",
            )


def memory_error(
    trial: Trial, paths: Sequence[str], after_first: Snapshot, after_stream: Snapshot, other: Tensor, reader: str | None
) -> ClipstepError:
    """Return the error for a network that keeps memory in the values at `paths`; the message names tensors first.

    `after_first` and `after_stream` are the snapshots after the first step and after a stream of other frames, `other` those frames
    for one step, and `reader` is the line that reads the memory, if it is known.
    """
    paths = sorted(paths, key=lambda path: not isinstance(after_stream.at(path).value, Tensor))
    path, more = paths[0], f" (also {listed(paths[1:], SHOWN)})" * (len(paths) > 1)
    old, new, last = (moment.at(path) for moment in (trial.initial, after_first, after_stream))
    new = last if same(old.value, new.value) else new
    numbers = isinstance(old.value, Tensor) and str(old) == str(new)
    read = f", read at {reader}" if reader not in (None, UNKNOWN) else ""
    buffer = isinstance(old.value, Tensor) and old.ref is not None and old.ref.registered
    return ClipstepError(
        f"the network keeps memory in {path}{more}, which no artifact would have",
        got=f"{old} before, {'other numbers' if numbers else new} after a step; written at {trial.line_changing(path, after_stream, other)}{read}",
        expected="the same outputs for the same frames and states, whatever passed before",
        fix=_recipe(path, new.value if str(new) == str(last) else None, len(trial.inputs) > 1)
        + "; or, as it is a registered buffer, let --adapter buffers make it a state" * buffer,
    )


def unexplained_error(trial: Trial, other: Tensor) -> ClipstepError:
    """Return the error for outputs that differ although no value that can be reached does: the random numbers or the memory are elsewhere."""
    runs = []
    for _ in range(2):
        with OperationRecorder(checksums=True) as recorder:
            trial.run()
        runs.append(recorder)
        trial.run(other)
    return ClipstepError(
        f"the network is not deterministic, or keeps memory outside of it: {first_difference(*runs)}",
        got="other outputs for the same frames and states after other frames",
        fix=f"take what it remembers as a state and return the next one: {PAGE}",
    )


def _shared_state(name: str) -> Any:
    return shared_states()[name]


def _recipe(path: str, value: Any, states: bool) -> str:
    """Return the advice how to turn the memory at `path` into a state.

    `value` is an example of it, if its shape stays the same; `states` says whether the network has other states.
    """
    own = path.partition(" in ")[0].rpartition(".")[2].partition("[")[0]
    typed = own.isidentifier() and not keyword.iskeyword(own) and own != "frames"
    name, called = (own, "") if typed else ("memory", ", or a name of yours")
    if isinstance(value, Tensor) and 1 <= value.ndim <= 4:
        start = f"torch.zeros({', '.join(map(str, value.shape))})"
    else:
        start = "torch.zeros(1, 1)" if isinstance(value, int | float) else "a tensor of a fixed shape that holds all of it"
    inputs = f"frames, *states, {name}" if states else f"frames, {name}"
    outputs = f"(logits, {'*next states, ' * states}next {name})"
    return f'make it a state: forward({inputs}) returns {outputs}, and initial_states() has "{name}"{called}: {start}; see {PAGE}'
