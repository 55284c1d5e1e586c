"""Golden steps: recorded inputs and expected outputs of consecutive steps, against which an artifact can be checked on any device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Flush, Input, Interface
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError, step_error_context
from clipstep.runtime.model import StepModel, StepOutputs
from clipstep.runtime.subclip_stream import run_flush_steps
from clipstep.runtime.wording import counted

GOLDEN_FILE = "golden.safetensors"
"""The file of the golden steps in a bundle."""
BOUNDS = {"float32": 1e-4, "float16": 2e-2, "dynamic8": 0.1, "int8": 0.3, "w8a8": 0.3, "palette8": 0.1, "palette6": 0.3, "palette4": 1.0}
"""The largest error that an artifact of that precision may have, as a fraction of each output's `scale_of`.

Measured errors, as the same fraction (docs/measurements.md): up to 2e-5 in float32 against float64 (resnet3d_50, random weights); in float16
7e-3 for the home network of these measurements, and up to 1.6e-2 for others; in dynamic8 2.8e-2 for the home network; in int8 3e-1 for it, and
2e-2 for r3d_18 (random weights); in w8a8 1.5e-1 for the home network.
With palettes of 8, 6 and 4 bits 1.3e-2, 1.6e-1 and 3.2e-1 for the home network.
"""
LEAST_SHARE = 1 / 20
LEAST_SCALE = 1e-2
SHORT_STEPS = 4
"""How many golden steps a shortened recording keeps, unless it takes more to get a prediction; see `short_steps`."""


class ParityError(ClipstepError):
    """An artifact computes something else than the network, or declares something else."""


@dataclass(frozen=True)
class GoldenSteps:
    """N consecutive steps of one stream, with the outputs that are expected of them.

    Example:
        ```python
        with Bundle.open("gestures.clipstep") as bundle, StepModel.load(bundle) as model:
            print(check_golden(model, GoldenSteps.of(bundle), "float32").relative)
        ```
    """

    subclips: Array
    """`(S, *shape)`, such as `(S, T, H, W, 3)` uint8, of the shape of the manifest's input; step `i` takes subclip `i % S`."""
    logits: Array
    """`(N, classes)` float32."""
    states: dict[str, Array]
    """For each state, in the manifest's order, its values after the last M steps, `(M, *shape)`; M is N, unless the states are large."""
    flushed: Mapping[int, Array] = field(default_factory=dict)
    """The logits `(classes,)` that a flush returns: the key `n` stands for a video that ends after the first `n` golden steps. Empty if the
    network has nothing to flush, and in bundles that do not record flushes."""
    kept: dict[str, Array] = field(default_factory=dict)
    """For each kept output, in the manifest's order, its values after the last M steps, as of the states."""

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {'x'.join(map(str, value.shape[1:]))}" for name, value in self.states.items())
        flushed = f"; flushed after {', '.join(map(str, self.flushed))}" if self.flushed else ""
        return f"<GoldenSteps: {len(self.logits)} on {len(self.subclips)} subclips; states: {shapes or 'none'}{flushed}>"

    @property
    def outputs(self) -> dict[str, Array]:
        """The recorded values by output: `logits`, then the states, then the kept outputs."""
        return {"logits": self.logits, **self.states, **self.kept}

    def scale(self, output: str) -> float:
        """Return the scale by which the errors of an output are divided; see `scale_of`."""
        return scale_of(self.outputs[output])

    def flushed_scale(self) -> float:
        """Return the scale of the logits of flushed videos: the larger one of theirs and of those of the steps.

        A stream may have no prediction before the end of so short a video: the logits of its steps are then zeros, which say nothing about a scale.
        """
        return max(self.scale("logits"), scale_of(np.stack(list(self.flushed.values()))))

    def check(self, interface: Interface) -> None:
        """Check that the golden steps fit an interface.

        Raises:
            ClipstepError: there are none; or a tensor has another type, shape or length than the interface says, or is not finite.
        """
        missing = [f"no states.{state.name}" for state in interface.states if state.name not in self.states]
        missing += [f"no outputs.{output.name}" for output in interface.kept_outputs if output.name not in self.kept]
        if missing:
            raise _unusable(", ".join(missing), "each state and each kept output of the manifest")
        recorded = [*self.states.values(), *self.kept.values()]
        count = len(recorded[0]) if recorded else 0
        classes = (len(interface.labels),)
        expected = {
            "subclips": (self.subclips, _recorded_dtype(interface.input, self.subclips), interface.input.shape, None),
            "logits": (self.logits, "float32", classes, None),
            **{f"states.{s.name}": (self.states[s.name], s.dtype, s.shape, count) for s in interface.states},
            **{f"outputs.{o.name}": (self.kept[o.name], o.dtype, o.shape, count) for o in interface.kept_outputs},
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
        """Return the tensors of the file by name: `subclips`, `logits`, `states.NAME`, `outputs.NAME` of the kept outputs and, if videos were
        flushed, `flushed` `(F, classes)` and `flushed_after` `(F,)` int64, the number of steps of each of them."""
        named = {"subclips": self.subclips, "logits": self.logits, **{f"states.{name}": value for name, value in self.states.items()}}
        named |= {f"outputs.{name}": value for name, value in self.kept.items()}
        if self.flushed:
            named |= {"flushed": np.stack(list(self.flushed.values())), "flushed_after": np.array(list(self.flushed), np.int64)}
        return {name: np.ascontiguousarray(value) for name, value in named.items()}

    def save(self, path: Path) -> None:
        """Write the golden steps to a safetensors file."""
        save_file(self.tensors(), path)

    @classmethod
    def of(cls, bundle: Bundle) -> "GoldenSteps":
        """Return the golden steps of a bundle, checked against its manifest.

        Raises:
            ClipstepError: they cannot be read, or do not fit the manifest.
        """
        kept = [output.name for output in bundle.manifest.kept_outputs]
        golden = cls.load(path := bundle.file(bundle.manifest.golden), [state.name for state in bundle.manifest.states], kept)
        try:
            golden.check(bundle.manifest)
        except ClipstepError as error:
            raise ClipstepError(f"{path}: {error}") from error
        return golden

    @classmethod
    def load(cls, path: Path, state_names: Sequence[str], kept_names: Sequence[str] = ()) -> "GoldenSteps":
        """Read the golden steps in a file, without a check; see `check`."""
        try:
            values = load_file(path)
            states = {name: values[f"states.{name}"] for name in state_names}
            kept = {name: values[f"outputs.{name}"] for name in kept_names}
            return cls(values["subclips"], values["logits"], states, _flushed(values), kept)
        except KeyError as error:
            raise ClipstepError(f"{path}: cannot be read", got=f"no {error.args[0]}", expected="golden steps", fix="export it again") from error
        except (SafetensorError, TypeError, ValueError, OSError) as error:
            raise ClipstepError(f"{path}: cannot be read", got=str(error), expected="golden steps", fix="export it again") from error


def _recorded_dtype(spec: Input, subclips: Array) -> str:
    """Return the type that golden frames must have: artifacts that take float32 may be of a network whose frames are uint8, which is recorded."""
    if spec.kind == "video" or spec.dtype == "uint8":
        return "uint8"
    return "uint8" if spec.kind == "images" and subclips.dtype == np.uint8 else "float32"


def _flushed(values: Mapping[str, Array]) -> dict[int, Array]:
    if "flushed" not in values and "flushed_after" not in values:
        return {}
    logits, after = values["flushed"], values["flushed_after"]
    if after.dtype != np.int64 or after.ndim != 1 or logits.shape[:1] != after.shape or len(set(after.tolist())) != len(after) or not len(after):
        raise ValueError(f"flushed {logits.shape} and flushed_after {after.dtype} {after.shape}, which do not fit each other")
    return dict(zip(after.tolist(), logits, strict=True))


def shortest_steps(flush: Flush, frames: int) -> int:
    """Return how many steps of `frames` frames the shortest video has for which the network gives a prediction."""
    return -(-flush.min_frames // frames)


def short_steps(flush: Flush | None, frames: int, delay: int, steps: int) -> int:
    """Return how many of `steps` golden steps to keep in a shortened recording: enough for a prediction and for a flushed video."""
    needed = shortest_steps(flush, frames) if flush else 0
    return min(steps, max(SHORT_STEPS, delay // frames + 2, needed))


def flush_points(flush: Flush | None, frames: int, delay: int, steps: int) -> tuple[int, ...]:
    """Return the numbers of golden steps after which to record a flush: the smallest that the network allows, `short_steps`, and `steps`."""
    if flush is None:
        return ()
    shortest = shortest_steps(flush, frames)
    points = {shortest, short_steps(flush, frames, delay, steps), steps}
    return tuple(sorted(point for point in points if shortest <= point <= steps))


def _unusable(got: str, expected: str) -> ClipstepError:
    return ClipstepError("the golden steps cannot be used", got=got, expected=expected, fix="export it again")


def scale_of(values: Array) -> float:
    """Return the scale by which the errors of an output are divided: its range over all golden steps and elements.

    It is at least a twentieth of the largest magnitude, because floats resolve small changes of large numbers no better; and 0.01 if the
    output is zero everywhere.
    """
    if not values.size:
        return LEAST_SCALE
    wide = values.astype(np.float64)
    return max(float(np.ptp(wide)), LEAST_SHARE * float(np.abs(wide).max())) or LEAST_SCALE


def bound_text(precision: str) -> str:
    """Return the bound of a precision in words."""
    return f"{BOUNDS[precision]:g} of each output's range over the golden steps, and so top-1 wherever its lead is twice that"


@dataclass(frozen=True)
class GoldenErrors:
    """The largest errors of an artifact over the golden steps."""

    steps: int
    absolute: float
    relative: float
    """The largest error as a fraction of its output's `scale_of`."""


def check_golden(model: StepModel, golden: GoldenSteps, precision: str) -> GoldenErrors:
    """Run the golden steps, the recorded flushes, and the first step again after a reset, and compare all outputs.

    If every output is within its bound, the artifact's likeliest class is the same as the reference's wherever the reference's leads the next
    class by more than twice the bound.

    Args:
        model: the loaded artifact.
        golden: the golden steps of its bundle.
        precision: the artifact's precision, which decides the bound: a key of `BOUNDS`.

    Raises:
        ParityError: an error exceeds the bound, a value is not finite, or the first step gives other outputs after the reset.
        ClipstepError: the golden steps do not fit the model.
    """
    golden.check(model.interface)
    scales = {name: golden.scale(name) for name in golden.outputs}
    states = model.initial_states()
    first: StepOutputs | None = None
    absolute = relative = 0.0
    for step in range(len(golden.logits)):
        with step_error_context(step):
            outputs = model.step_outputs(_subclip(model, golden, step), states)
        states = outputs.states
        for name, reference, value in _compared(golden, step, outputs):
            error, bound = error_at(name, step, reference, value), BOUNDS[precision] * scales[name]
            if error > bound:
                raise ParityError(f"{name} is off at step {step}", got=f"an error of {error:.3g}", expected=f"at most {bound:.3g}")
            absolute, relative = max(absolute, error), max(relative, error / scales[name])
        first = first or outputs
        if step + 1 in golden.flushed:
            scale = golden.flushed_scale()
            error = _check_flush(model, golden, step + 1, states, BOUNDS[precision] * scale)
            absolute, relative = max(absolute, error), max(relative, error / scale)
    again = model.step_outputs(_subclip(model, golden, 0), model.initial_states())
    if first is None or not all(np.array_equal(value, old) for value, old in zip(_values(again), _values(first), strict=True)):
        raise ParityError("after a reset the first step gives other outputs than before", expected="the same, bit for bit")
    return GoldenErrors(len(golden.logits), absolute, relative)


def _check_flush(model: StepModel, golden: GoldenSteps, steps: int, states: Sequence[Array], bound: float) -> float:
    """Flush a video of `steps` steps, and return the error of its logits."""
    error = error_at("logits of the flushed video", steps, golden.flushed[steps], run_flush_steps(model, states, steps).logits)
    if error > bound:
        raise ParityError(
            f"logits are off where a video of {counted(steps, 'step')} is flushed",
            got=f"an error of {error:.3g}",
            expected=f"at most {bound:.3g}",
        )
    return error


def error_at(name: str, step: int, reference: Array, value: Array) -> float:
    """Return the largest absolute error of an output.

    Raises:
        ParityError: it has another shape than the reference, or a value that is not finite.
    """
    if value.shape != reference.shape:
        raise ParityError(f"{name} has another shape at step {step}", got=value.shape, expected=reference.shape)
    if not np.isfinite(value).all():
        raise ParityError(f"{name} is not finite at step {step}", got=value[~np.isfinite(value)][0], expected="numbers, as in the golden steps")
    return float(np.abs(value.astype(np.float64) - reference).max(initial=0))


def _values(outputs: StepOutputs) -> tuple[Array, ...]:
    return (outputs.logits, *outputs.states, *outputs.kept.values())


def _compared(golden: GoldenSteps, step: int, outputs: StepOutputs) -> Iterator[tuple[str, Array, Array]]:
    """Yield each output's name, its recorded value and the computed one, without those that were not recorded for this step."""
    for (name, recorded), value in zip(golden.outputs.items(), _values(outputs), strict=True):
        left_out = len(golden.logits) - len(recorded)
        if step >= left_out:
            yield name, recorded[step - left_out], value


def _subclip(model: StepModel, golden: GoldenSteps, step: int) -> Array:
    subclip: Array = golden.subclips[step % len(golden.subclips)].astype(model.interface.input.dtype, copy=False)
    return subclip
