"""Golden steps: recorded inputs and expected outputs of one stream, by which an artifact proves itself anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError, in_step
from clipstep.runtime.manifest import Flush, Interface
from clipstep.runtime.model import StepModel
from clipstep.runtime.session import end_video
from clipstep.runtime.wording import counted

GOLDEN_FILE = "golden.safetensors"
"""The file of the golden steps in a bundle."""
BOUNDS = {"float32": 1e-4, "float16": 2e-2}
"""How far an artifact of that precision may be off, as a share of each output's ``scale_of``.

Float32 networks differ from float64 by up to 2e-5 of it (resnet3d_50, random weights), the home network in float16 by 7e-3 and
others by up to 1.6e-2 (docs/measurements.md).
"""
LEAST_SHARE = 1 / 20
LEAST_SCALE = 1e-2
SHORT_STEPS = 4
"""What is kept of golden steps that are shortened, unless a prediction comes later."""


class ParityError(ClipstepError):
    """An artifact that does not compute the golden steps."""


@dataclass(frozen=True)
class GoldenSteps:
    """N consecutive steps of one stream.

    ``subclips`` is ``(S, T, H, W, 3)`` uint8; step ``i`` takes subclip ``i % S``. ``logits`` is ``(N, classes)`` and
    ``states`` holds for each state, in the manifest's order, its value after each of the last M steps, ``(M, *shape)``: of all
    of them, unless they are large. ``flushed`` holds logits ``(classes,)`` of whole videos by their number of steps: of the first
    so many steps of the stream, flushed. It is empty where there is nothing to flush, and in bundles of before it was recorded.
    """

    subclips: Array
    logits: Array
    states: dict[str, Array]
    flushed: Mapping[int, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {'x'.join(map(str, value.shape[1:]))}" for name, value in self.states.items())
        flushed = f"; flushed after {', '.join(map(str, self.flushed))}" if self.flushed else ""
        return f"<GoldenSteps: {len(self.logits)} on {len(self.subclips)} subclips; states: {shapes or 'none'}{flushed}>"

    @property
    def outputs(self) -> dict[str, Array]:
        """What was recorded of each output: ``logits``, then the states."""
        return {"logits": self.logits, **self.states}

    def scale(self, output: str) -> float:
        """What the errors of an output are measured by, over all these steps."""
        return scale_of(self.outputs[output])

    def check(self, interface: Interface) -> None:
        """Makes sure that these are golden steps of such a network.

        Raises:
            ClipstepError: there are none; something has another type, shape or number than the interface says, or is not finite.
        """
        missing = [f"no states.{state.name}" for state in interface.states if state.name not in self.states]
        if missing:
            raise _unusable(", ".join(missing), "each state of the manifest")
        count = len(self.states[interface.states[0].name]) if interface.states else 0
        classes = (len(interface.labels),)
        expected = {
            "subclips": (self.subclips, "uint8", interface.input.shape, None),
            "logits": (self.logits, "float32", classes, None),
            **{f"states.{s.name}": (self.states[s.name], s.dtype, s.shape, count) for s in interface.states},
        }
        if self.flushed:
            expected["flushed"] = (np.stack(list(self.flushed.values())), "float32", classes, None)
        for name, (values, dtype, shape, rows) in expected.items():
            if values.dtype != dtype or values.shape[1:] != shape or values.ndim == 0 or rows not in (None, len(values)):
                raise _unusable(f"{name} {values.dtype} {values.shape}", f"{name} {dtype} {(rows or 'steps', *shape)}".replace("'", ""))
            if not np.isfinite(values).all():
                raise _unusable(f"a value in {name} that is not finite", "numbers")
        if not len(self.logits) or not len(self.subclips) or count > len(self.logits):
            got = f"{len(self.logits)} steps on {len(self.subclips)} subclips, {count} with states"
            raise _unusable(got, "at least one step and one subclip, and states of no more steps than logits")
        self._check_flushed(interface)

    def _check_flushed(self, interface: Interface) -> None:
        if not self.flushed:
            return
        if interface.flush is None:
            raise _unusable("logits of flushed videos", "none, because the manifest has no flush")
        shortest = shortest_steps(interface.flush, interface.input.shape[0])
        if not all(shortest <= steps <= len(self.logits) for steps in self.flushed):
            raise _unusable(f"flushes after {', '.join(map(str, self.flushed))} steps", f"after {shortest} to {len(self.logits)}")

    def tensors(self) -> dict[str, Array]:
        """What is in the file, by name: ``subclips``, ``logits`` and ``states.NAME`` as above and, where videos were flushed, ``flushed``
        ``(F, classes)`` and ``flushed_after`` ``(F,)`` int64, the number of steps of each."""
        named = {"subclips": self.subclips, "logits": self.logits, **{f"states.{name}": value for name, value in self.states.items()}}
        if self.flushed:
            named |= {"flushed": np.stack(list(self.flushed.values())), "flushed_after": np.array(list(self.flushed), np.int64)}
        return {name: np.ascontiguousarray(value) for name, value in named.items()}

    def save(self, path: Path) -> None:
        save_file(self.tensors(), path)

    @classmethod
    def of(cls, bundle: Bundle) -> "GoldenSteps":
        """The golden steps that a bundle ships, checked against its manifest.

        Raises:
            ClipstepError: they cannot be read, or are not those of such a network.
        """
        golden = cls.load(path := bundle.file(bundle.manifest.golden), [state.name for state in bundle.manifest.states])
        try:
            golden.check(bundle.manifest)
        except ClipstepError as error:
            raise ClipstepError(f"{path}: {error}") from error
        return golden

    @classmethod
    def load(cls, path: Path, state_names: Sequence[str]) -> "GoldenSteps":
        """The golden steps in a file, as they are: ``check`` tells whether they can be used."""
        try:
            values = load_file(path)
            states = {name: values[f"states.{name}"] for name in state_names}
            return cls(values["subclips"], values["logits"], states, _flushed(values))
        except KeyError as error:
            raise ClipstepError(f"{path}: cannot be read", got=f"no {error.args[0]}", expected="golden steps", fix="export it again") from error
        except (SafetensorError, TypeError, ValueError, OSError) as error:
            raise ClipstepError(f"{path}: cannot be read", got=str(error), expected="golden steps", fix="export it again") from error


def _flushed(values: Mapping[str, Array]) -> dict[int, Array]:
    if "flushed" not in values and "flushed_after" not in values:
        return {}
    logits, after = values["flushed"], values["flushed_after"]
    if after.dtype != np.int64 or after.ndim != 1 or logits.shape[:1] != after.shape or len(set(after.tolist())) != len(after) or not len(after):
        raise ValueError(f"flushed {logits.shape} and flushed_after {after.dtype} {after.shape}, which do not fit each other")
    return dict(zip(after.tolist(), logits, strict=True))


def shortest_steps(flush: Flush, frames: int) -> int:
    """The steps of ``frames`` frames that the shortest video has of which the network says something."""
    return -(-flush.min_frames // frames)


def short_steps(flush: Flush | None, frames: int, delay: int, steps: int) -> int:
    """How many of so many golden steps are kept where they are shortened: a prediction must have come, and a video be flushed."""
    needed = shortest_steps(flush, frames) if flush else 0
    return min(steps, max(SHORT_STEPS, delay // frames + 2, needed))


def flush_points(flush: Flush | None, frames: int, delay: int, steps: int) -> tuple[int, ...]:
    """After how many golden steps the video is flushed too: the fewest that the network takes, those that are kept of shortened
    ones, and all."""
    if flush is None:
        return ()
    shortest = shortest_steps(flush, frames)
    points = {shortest, short_steps(flush, frames, delay, steps), steps}
    return tuple(sorted(point for point in points if shortest <= point <= steps))


def _unusable(got: str, expected: str) -> ClipstepError:
    return ClipstepError("the golden steps cannot be used", got=got, expected=expected, fix="export it again")


def scale_of(values: Array) -> float:
    """What errors of an output are measured by: its range over all golden steps and elements.

    At least a twentieth of its largest magnitude, because a float holds a small change of a large number, or a number that stays
    the same, no better than that; 0.01 where the output is zero everywhere.
    """
    if not values.size:
        return LEAST_SCALE
    wide = values.astype(np.float64)
    return max(float(np.ptp(wide)), LEAST_SHARE * float(np.abs(wide).max())) or LEAST_SCALE


def bound_text(precision: str) -> str:
    """The bound in words."""
    return f"{BOUNDS[precision]:g} of each output's range over the golden steps, and so top-1 wherever its lead is twice that"


@dataclass(frozen=True)
class Errors:
    """The largest errors over the golden steps."""

    steps: int
    absolute: float
    relative: float
    """The largest error that was found, as a share of its output's ``scale_of``."""


def check_golden(model: StepModel, golden: GoldenSteps, precision: str) -> Errors:
    """Runs the golden steps, flushes the videos that were recorded so, runs the first step again after a reset, and compares everything.

    Where every output is within its bound, top-1 is the reference's wherever that leads by more than twice the bound; a nearer
    tie may go either way.

    Raises:
        ParityError: an output is further from the reference than the precision's bound, a value is not finite, or the reset does
            not bring back the first step's outputs.
        ClipstepError: the golden steps are not those of such a network.
    """
    golden.check(model.interface)
    scales = {name: golden.scale(name) for name in golden.outputs}
    states = model.initial_states()
    first: list[Array] = []
    absolute = relative = 0.0
    for step in range(len(golden.logits)):
        with in_step(step):
            logits, states = model.step(_subclip(model, golden, step), states)
        for name, reference, value in _compared(golden, step, logits, states):
            error, bound = error_at(name, step, reference, value), BOUNDS[precision] * scales[name]
            if error > bound:
                raise ParityError(f"{name} is off at step {step}", got=f"an error of {error:.3g}", expected=f"at most {bound:.3g}")
            absolute, relative = max(absolute, error), max(relative, error / scales[name])
        first = first or [logits, *states]
        if step + 1 in golden.flushed:
            error = _check_flush(model, golden, step + 1, states, BOUNDS[precision] * scales["logits"])
            absolute, relative = max(absolute, error), max(relative, error / scales["logits"])
    logits, states = model.step(_subclip(model, golden, 0), model.initial_states())
    if not all(np.array_equal(value, old) for value, old in zip((logits, *states), first, strict=True)):
        raise ParityError("after a reset the first step gives other outputs than before", expected="the same, bit for bit")
    return Errors(len(golden.logits), absolute, relative)


def _check_flush(model: StepModel, golden: GoldenSteps, steps: int, states: Sequence[Array], bound: float) -> float:
    """The error of the logits of a video of so many steps."""
    error = error_at("logits of the flushed video", steps, golden.flushed[steps], end_video(model, states, steps))
    if error > bound:
        raise ParityError(
            f"logits are off where a video of {counted(steps, 'step')} is flushed",
            got=f"an error of {error:.3g}",
            expected=f"at most {bound:.3g}",
        )
    return error


def error_at(name: str, step: int, reference: Array, value: Array) -> float:
    """The largest absolute error of an output.

    Raises:
        ParityError: it has another shape than the reference, or a value that is not finite.
    """
    if value.shape != reference.shape:
        raise ParityError(f"{name} has another shape at step {step}", got=value.shape, expected=reference.shape)
    if not np.isfinite(value).all():
        raise ParityError(f"{name} is not finite at step {step}", got=value[~np.isfinite(value)][0], expected="numbers, as in the golden steps")
    return float(np.abs(value.astype(np.float64) - reference).max(initial=0))


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
