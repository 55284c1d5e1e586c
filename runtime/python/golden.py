"""Golden steps: recorded inputs and expected outputs of one stream, by which an artifact proves itself anywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engines import Array
from clipstep.runtime.errors import ClipstepError, in_step
from clipstep.runtime.model import StepModel

BOUNDS = {"float32": 1e-4, "float16": 5e-2}
"""How far an artifact of that precision may be off: relative errors, as :class:`Errors` says."""


class ParityError(ClipstepError):
    """An artifact that does not compute the golden steps."""


@dataclass(frozen=True)
class GoldenSteps:
    """N consecutive steps of one stream.

    ``subclips`` is ``(S, T, H, W, 3)`` uint8; step ``i`` takes subclip ``i % S``. ``logits`` is ``(N, classes)`` and
    ``states`` holds for each state, in the manifest's order, its value after each of the last M steps, ``(M, *shape)``: of all
    of them, unless they are large.
    """

    subclips: Array
    logits: Array
    states: dict[str, Array]

    def save(self, path: Path) -> None:
        named = {f"states.{name}": value for name, value in self.states.items()}
        save_file({"subclips": self.subclips, "logits": self.logits, **named}, path)

    @classmethod
    def of(cls, bundle: Bundle) -> "GoldenSteps":
        """The golden steps that a bundle ships."""
        return cls.load(bundle.file(bundle.manifest.golden), [state.name for state in bundle.manifest.states])

    @classmethod
    def load(cls, path: Path, state_names: Sequence[str]) -> "GoldenSteps":
        try:
            values = load_file(path)
            return cls(values["subclips"], values["logits"], {name: values[f"states.{name}"] for name in state_names})
        except (SafetensorError, KeyError) as error:
            raise ClipstepError(f"{path}: cannot be read", got=str(error), expected="golden steps") from error


def bound_text(precision: str) -> str:
    """The bound in words."""
    return f"{BOUNDS[precision]:g} of each output's largest magnitude (at least 1), top-1 equal at every step"


@dataclass(frozen=True)
class Errors:
    """The largest errors over the golden steps."""

    steps: int
    absolute: float
    relative: float
    """Of an output's largest magnitude in the reference, at least 1."""


def check_golden(model: StepModel, golden: GoldenSteps, precision: str) -> Errors:
    """Runs the golden steps, then the first one again after a reset, and compares everything.

    Raises:
        ParityError: an output is further from the reference than the precision's bound, another class is top-1, a
            value is not finite, or the reset does not bring back the first step's outputs.
    """
    states = model.initial_states()
    first: list[Array] = []
    absolute = relative = 0.0
    for step, expected_logits in enumerate(golden.logits):
        with in_step(step):
            logits, states = model.step(_subclip(model, golden, step), states)
        for name, reference, value in _compared(golden, step, logits, states):
            error, scale = float(np.abs(value - reference).max()), max(1.0, float(np.abs(reference).max()))
            if not error <= BOUNDS[precision] * scale:
                raise ParityError(
                    f"{name} is off at step {step}", got=f"an error of {error:.3g}", expected=f"at most {BOUNDS[precision] * scale:.3g}"
                )
            absolute, relative = max(absolute, error), max(relative, error / scale)
        if logits.argmax() != expected_logits.argmax():
            got, wanted = (model.labels[int(values.argmax())] for values in (logits, expected_logits))
            raise ParityError(f"another class is top-1 at step {step}", got=got, expected=wanted)
        first = first or [logits, *states]
    logits, states = model.step(_subclip(model, golden, 0), model.initial_states())
    if not all(np.array_equal(value, old) for value, old in zip((logits, *states), first, strict=True)):
        raise ParityError("after a reset the first step gives other outputs than before", expected="the same, bit for bit")
    return Errors(len(golden.logits), absolute, relative)


def _compared(golden: GoldenSteps, step: int, logits: Array, states: Sequence[Array]) -> Iterator[tuple[str, Array, Array]]:
    """Each output's name, its recorded value and the one that was computed."""
    yield "logits", golden.logits[step], logits
    for (name, recorded), value in zip(golden.states.items(), states, strict=True):
        left_out = len(golden.logits) - len(recorded)
        if step >= left_out:
            yield name, recorded[step - left_out], value


def _subclip(model: StepModel, golden: GoldenSteps, step: int) -> Array:
    subclip: Array = golden.subclips[step % len(golden.subclips)].astype(model.interface.input.dtype, copy=False)
    return subclip
