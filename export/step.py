"""The step contract: any network as `step(frames, *states) -> (logits, *next_states, *kept)`, batch 1, on camera frames.

A network is any `nn.Module` whose `forward(frames, *states)` takes normalised frames `(N, 3, T, H, W)`, or another of `clipstep.network.inputs`,
and returns the logits `(N, classes)`, followed by the next states. If it has states, its `initial_states()` returns their names and
their values at the start of a video. `contract.py` holds the checks. `outputs.py` takes the logits from what other networks return, and
outputs to keep beside them; `adapters.py` has networks that take something else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clipstep.export.adapters import check_grey, helpful_adapter
from clipstep.export.contract import check_modules, check_step, check_weights, initial_states_of, input_names, output_names
from clipstep.export.outputs import CONTRACT, AskedOutputs, OutputChoice, choose_outputs
from clipstep.export.stream.adapt import streamed
from clipstep.network.inputs import VIDEO, NetworkInput, negative, noise_like
from clipstep.network.preprocess import normalise
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.bundle.manifest import Flush
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.synthetic_frames import synthetic_input
from clipstep.runtime.wording import listed

NOTHING_ASKED = AskedOutputs()


class Step(nn.Module):
    """A network with its normalisation: `(frames, *states) -> (logits (1, classes), *next_states, *kept)`, a pure function.

    `frames` are a subclip: of a video `(T, H, W, 3)` RGB, uint8 or float32 in 0..255. `outputs` takes the outputs from what the network returns, and
    `layout` names the axes of the frames.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        outputs: Callable[[Any], tuple[Any, ...]] = CONTRACT,
        layout: str = "THWC",
    ) -> None:
        super().__init__()
        self.network = network
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.outputs = outputs
        self.layout = layout

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return self.outputs(self.network(normalise(frames[None], self.mean, self.std, self.layout), *states))

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> "Step":
        """Return the same step with another normalisation."""
        return Step(self.network, mean, std, self.outputs, self.layout)


@dataclass(frozen=True)
class StepProgram:
    """A step with what an export needs to know of it: example frames, initial states by name, labels."""

    step: Step
    frames: Tensor
    """A subclip: `(T, H, W, 3)` uint8 of a video."""
    states: dict[str, Tensor]
    labels: tuple[str, ...]
    sample: Tensor
    """Consecutive frames that are like those of real videos, `(n, H, W, 3)` of a video, the subclip `frames` first."""
    delay: int = 0
    """The number of newest frames that a prediction does not take in yet."""
    clip: Callable[[Tensor, bool], tuple[Tensor, ...] | None] | None = None
    """The reference for the steps of a stream: the clip network's logits `(1, classes)` and kept outputs on all frames so far.

    It takes these frames `(n, H, W, 3)` and whether the video ends with them, and returns None while there are too few for a prediction.
    None for a step that is not of a stream."""
    flush: Flush | None = None
    """How the step is told that a video has ended, for a network whose predictions then change."""
    temporal_average: Literal["cumulative", "sliding_window"] | None = None
    """Which frames a prediction is the mean over, if that is known."""
    window: int | None = None
    """The number of newest frames that a prediction is the mean over, if `temporal_average` is `sliding_window`."""
    choice: OutputChoice = CONTRACT
    """What is taken from the value that the network returns."""
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The shapes of the outputs that are kept beside the logits and the states, by name."""
    input: NetworkInput = VIDEO
    """What a frame is."""
    calibration: tuple[Tensor, ...] = ()
    """Videos, beside the sample, for whose ranges of values an artifact of int8 is made, each as its subclips `(S, T, H, W, 3)`."""
    calibration_percentile: float = 100.0
    """At which percentile of the numbers that a value has in a step its range in int8 ends, and at the same one from below; 100 leaves out none."""
    float32_layers: int = 0
    """How many layers an artifact of int8 computes in float32: those whose rounding would move the prediction most."""
    correct_biases: bool = False
    """Whether an artifact of int8 has other biases, so that rounding the weights does not change the mean of a channel."""
    found_ranges: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict, repr=False)
    """The ranges that were found for int8 so far, by the hash of the graph and by the name of the value, so that a graph of which several artifacts
    are written runs once on all videos."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (self.frames, *self.states.values())

    @property
    def input_names(self) -> list[str]:
        return input_names(list(self.states))

    @property
    def output_names(self) -> list[str]:
        return output_names(list(self.states), list(self.kept))

    def run(self, frames: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run a step, and return the logits, the next states and the kept outputs."""
        logits, *others = self.step(frames, *states)
        return logits, others[: len(self.states)], others[len(self.states) :]

    def synthetic(self, count: int) -> np.ndarray[Any, Any]:
        """Return `count` subclips `(count, *frames.shape)` of drawn scenes, or of joints that move."""
        return synthetic_input(self.input.kind, count, self.frames.shape, self.input.dtype, self.step.mean, self.step.std)

    def subclips(self, frames: Tensor) -> Tensor:
        """Divide consecutive frames `(n, H, W, 3)` into those of whole steps, `(S, T, H, W, 3)`; what is left over is dropped."""
        steps = len(frames) // len(self.frames)
        return frames[: steps * len(self.frames)].reshape(steps, *self.frames.shape)


def program_of(
    spec: NetworkSpec, stream: int | None = None, window: int | None = None, *, asked: AskedOutputs = NOTHING_ASKED, check: bool = True
) -> StepProgram:
    """Return the step program of a network.

    Args:
        spec: the network.
        stream: the number of new frames of a step, in place of the network's own. The layers of a clip network get states for what they
            need of earlier frames; a network that has states of its own simply takes fewer frames at a time.
        window: predictions are the mean over this number of newest frames, a multiple of `stream`, in place of all.
        asked: which of the values that the network returns are the logits and which others are kept, where that is asked for.
        check: whether the network is checked against the step contract. Not needed for one from which a bundle was exported.

    Raises:
        ClipstepError: the network breaks the contract: names, types or shapes of states and outputs, an input that is written to,
            memory inside the network, random numbers, or training mode. Or it cannot become steps of that number of frames. Or it is not clear
            which of its outputs are the logits.
    """
    states = initial_states_of(spec.module)
    check_grey(spec.module, spec.mean, spec.std)
    frames = spec.sample.flatten(0, 1)
    if stream is None:
        step, choice = _step_of(spec, spec.module, spec.frames, states, asked, check=check)
        kept = _kept_shapes(step, choice, frames[: spec.frames], states)
        return StepProgram(step, frames[: spec.frames], states, spec.labels, frames, choice=choice, kept=kept, input=spec.input)
    if asked.kept and states:
        raise ClipstepError(
            "--keep-outputs with --stream is for clip networks",
            got=f"one with the states {listed(list(states))}",
            fix=f"leave --stream out, and export it with --frames {stream}",
        )
    choice = CONTRACT
    if not states and (check or asked != NOTHING_ASKED):
        _, choice = _step_of(spec, spec.module, spec.frames, states, asked, check=check)
    chosen = spec if choice == CONTRACT else replace(spec, module=_Chosen(spec.module, choice).eval())
    network, properties = streamed(chosen, stream, window, tuple(choice.kept))
    following = initial_states_of(network)
    _check_kept_names(following, choice)
    step, own = _step_of(spec, network, stream, following, NOTHING_ASKED, tuple(choice.kept), check=check)
    if own != CONTRACT or (states and asked != NOTHING_ASKED):
        raise ClipstepError(
            "--stream takes a network with states as it is",
            got="one that returns other values, too",
            fix="return (logits, *next_states), and no more",
        )
    kept = _kept_shapes(step, choice, frames[:stream], following)
    return StepProgram(step, frames[:stream], following, spec.labels, frames, choice=choice, kept=kept, input=spec.input, **properties)


def _check_kept_names(states: Mapping[str, Tensor], choice: OutputChoice) -> None:
    """Check that no kept output has the name of a state that a stream makes."""
    for name, path in choice.kept.items():
        if name in (*states, *(f"{state}_out" for state in states)):
            raise ClipstepError(
                f"the kept output {name}: the step has another value called {name}",
                expected="each name once",
                fix=f"give it another: my_{name}={path}",
            )


class _Chosen(nn.Module):
    """A network that returns its logits alone, or a tuple of them and the kept outputs, chosen from what another returns."""

    def __init__(self, network: nn.Module, choice: OutputChoice) -> None:
        super().__init__()
        self.network, self.choice = network, choice

    def forward(self, frames: Tensor) -> Any:
        outputs = self.choice(self.network(frames))
        return outputs if self.choice.kept else outputs[0]


def _step_of(
    spec: NetworkSpec, network: nn.Module, length: int, states: Mapping[str, Tensor], asked: AskedOutputs, kept: Sequence[str] = (), *, check: bool
) -> tuple[Step, OutputChoice]:
    """Return the step of `length` frames, and what it takes of the network's outputs; a stream's step returns those in `kept` last.

    With `check` it is checked against the contract on frames of the sample, on their negative and on noise.
    """
    frames, classes = spec.sample.flatten(0, 1), len(spec.labels)
    chooser = _Chooser(states, classes, asked)
    step = Step(network, spec.mean, spec.std, chooser, spec.input.layout).eval()
    inputs = dict(zip(input_names(list(states)), (frames[:length], *states.values()), strict=True))
    if check:
        check_modules(network)
        check_weights(network)
        others = negative(frames[-length:], spec.mean), noise_like(frames[:length], spec.mean, spec.std)
        clip = normalise(frames[None, :length], spec.mean, spec.std, spec.input.layout)
        advice = partial(helpful_adapter, network, clip, list(states.values()))
        check_step(network, step, inputs, classes, others, kept or asked.kept, advice)
    elif asked != NOTHING_ASKED:
        with torch.no_grad():
            step(*inputs.values())
    choice = chooser.choice or CONTRACT
    return Step(network, spec.mean, spec.std, choice, spec.input.layout).eval(), choice


class _Chooser:
    """Chooses the outputs at its first call, and takes the same ones from then on."""

    def __init__(self, states: Mapping[str, Tensor], classes: int, asked: AskedOutputs) -> None:
        self._states, self._classes, self._asked = states, classes, asked
        self.choice: OutputChoice | None = None

    def __call__(self, result: Any) -> tuple[Any, ...]:
        if self.choice is None:
            self.choice = choose_outputs(result, self._states, self._classes, self._asked)
        return self.choice(result)


@torch.no_grad()
def _kept_shapes(step: Step, choice: OutputChoice, frames: Tensor, states: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    if not choice.kept:
        return {}
    kept = step(frames, *states.values())[1 + len(states) :]
    return {name: tuple(value.shape) for name, value in zip(choice.kept, kept, strict=True)}
