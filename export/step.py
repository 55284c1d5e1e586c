"""The step contract: any network as `step(frames, *states) -> (logits, *next_states)`, batch 1, on camera frames.

A network is any `nn.Module` whose `forward(frames, *states)` takes normalised frames `(N, 3, T, H, W)` (2 channels of optical flow)
and returns the logits `(N, classes)`, followed by the next states. If it has states, its `initial_states()` returns their names and
their values at the start of a video. `contract.py` holds the checks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipstep.export.contract import check_modules, check_step, check_weights, initial_states_of, input_names, output_names
from clipstep.export.stream.adapt import streamed
from clipstep.network.preprocess import normalise
from clipstep.network.spec import NetworkSpec
from clipstep.network.states import outputs_of
from clipstep.runtime.bundle.manifest import Flush


class Step(nn.Module):
    """A network with its normalisation: `(frames, *states) -> (logits (1, classes), *next_states)`, a pure function.

    `frames` are `(T, H, W, 3)` RGB, uint8 or float32 in 0..255.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.mean = tuple(mean)
        self.std = tuple(std)

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(self.network(normalise(frames[None], self.mean, self.std), *states))


@dataclass(frozen=True)
class StepProgram:
    """A step with what an export needs to know of it: example frames, initial states by name, labels."""

    step: Step
    frames: Tensor
    """`(T, H, W, 3)` uint8."""
    states: dict[str, Tensor]
    labels: tuple[str, ...]
    delay: int = 0
    """The number of newest frames that a prediction does not take in yet."""
    clip: Callable[[Tensor, bool], Tensor | None] | None = None
    """The reference for the steps of a stream: the clip network's logits `(1, classes)` on all frames so far.

    It takes these frames `(n, H, W, 3)` and whether the video ends with them, and returns None while there are too few for a prediction.
    None for a step that is not of a stream."""
    flush: Flush | None = None
    """How the step is told that a video has ended, for a network whose predictions then change."""
    temporal_average: Literal["cumulative", "sliding_window"] | None = None
    """Which frames a prediction is the mean over, if that is known."""
    window: int | None = None
    """The number of newest frames that a prediction is the mean over, if `temporal_average` is `sliding_window`."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (self.frames, *self.states.values())

    @property
    def input_names(self) -> list[str]:
        return input_names(list(self.states))

    @property
    def output_names(self) -> list[str]:
        return output_names(list(self.states))

    def subclips(self, frames: Tensor) -> Tensor:
        """Divide consecutive frames `(n, H, W, 3)` into those of whole steps, `(S, T, H, W, 3)`; what is left over is dropped."""
        steps = len(frames) // len(self.frames)
        return frames[: steps * len(self.frames)].reshape(steps, *self.frames.shape)


def program_of(spec: NetworkSpec, stream: int | None = None, window: int | None = None, *, check: bool = True) -> StepProgram:
    """Return the step program of a network.

    Args:
        spec: the network.
        stream: the number of new frames of a step, in place of the network's own. The layers of a clip network get states for what they
            need of earlier frames; a network that has states of its own simply takes fewer frames at a time.
        window: predictions are the mean over this number of newest frames, a multiple of `stream`, in place of all.
        check: whether the network is checked against the step contract. Not needed for one from which a bundle was exported.

    Raises:
        ClipstepError: the network breaks the contract: names, types or shapes of states and outputs, an input that is written to,
            memory inside the network, random numbers, or training mode. Or it cannot become steps of that number of frames.
    """
    network, properties, length = spec.module, dict[str, Any](), spec.frames
    states = initial_states_of(network)
    if stream is not None:
        if not states and check:
            _checked_step(spec, network, length, states)
        network, properties = streamed(spec, stream, window)
        states, length = initial_states_of(network), stream
    step = _checked_step(spec, network, length, states) if check else Step(network, spec.mean, spec.std).eval()
    return StepProgram(step, spec.sample.flatten(0, 1)[:length], states, spec.labels, **properties)


def _checked_step(spec: NetworkSpec, network: nn.Module, length: int, states: Mapping[str, Tensor]) -> Step:
    """Return the step of `length` frames, checked against the contract on frames of the sample, on their negative and on noise."""
    check_modules(network)
    check_weights(network)
    step, frames = Step(network, spec.mean, spec.std).eval(), spec.sample.flatten(0, 1)
    noise = torch.randint(256, frames[:length].shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inputs = dict(zip(input_names(list(states)), (frames[:length], *states.values()), strict=True))
    check_step(network, step, inputs, len(spec.labels), (255 - frames[-length:], noise))
    return step
