"""Measure whether the errors of an artifact of lower precision grow over a long stream."""

from collections.abc import Iterable
from itertools import islice

import numpy as np

from clipstep.runtime.bundle.manifest import Drift
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import error_at, scale_of
from clipstep.runtime.model import StepModel, StepOutputs


def measure_drift(exact: StepModel, rounded: StepModel, subclips: Iterable[Array], steps: int) -> tuple[Drift, ...]:
    """Run two artifacts of one network on the same frames as one stream each, and return how far the outputs of the second are from the first's.

    Each keeps states of its own, so that errors of the states reach later steps. The first and the last tenth of fewer than ten steps are one step.

    Args:
        exact: the float32 artifact.
        rounded: the artifact of lower precision.
        subclips: consecutive subclips `(T, H, W, channels)` uint8, at least `steps` of them.
        steps: how many steps to run.

    Raises:
        ClipstepError: an output of the second is not finite, or a step fails.
    """
    names = ["logits", *(state.name for state in exact.interface.states), *(output.name for output in exact.interface.kept_outputs)]
    errors, ends = np.zeros((steps, len(names))), np.array([(np.inf, -np.inf)] * len(names))
    exact_states, rounded_states = exact.initial_states(), rounded.initial_states()
    for step, subclip in enumerate(islice(subclips, steps)):
        one, other = _step(exact, subclip, exact_states), _step(rounded, subclip, rounded_states)
        exact_states, rounded_states = one.states, other.states
        for index, (name, expected, value) in enumerate(zip(names, _values(one), _values(other), strict=True)):
            try:
                errors[step, index] = error_at(name, step, expected, value)
            except ClipstepError as error:
                raise ClipstepError(f"{rounded.description}: {error}") from error
            ends[index] = min(ends[index, 0], expected.min()), max(ends[index, 1], expected.max())
    shares = errors / [scale_of(end) for end in ends]
    tenth = max(1, steps // 10)
    first, last = shares[:tenth].max(axis=0), shares[-tenth:].max(axis=0)
    return tuple(Drift(output=name, first_tenth=float(a), last_tenth=float(b)) for name, a, b in zip(names, first, last, strict=True))


def _step(model: StepModel, subclip: Array, states: tuple[Array, ...]) -> StepOutputs:
    return model.step_outputs(subclip.astype(model.interface.input.dtype, copy=False), states)


def _values(outputs: StepOutputs) -> tuple[Array, ...]:
    return (outputs.logits, *outputs.states, *outputs.kept.values())
