"""The step contract: any network as ``step(frames, *states) -> (logits, *next_states)``, batch 1, on camera frames.

A network is any ``nn.Module`` whose ``forward(frames, *states)`` takes normalised ``(N, 3, T, H, W)`` (2 channels
if it sees optical flow) and returns logits ``(N, classes)`` and then the next states, and which, if it has states, says
by ``initial_states()`` how they are called and what they hold at the start of a video.
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
from clipstep.runtime.manifest import Flush


class Step(nn.Module):
    """``(frames (T, H, W, 3) uint8 RGB or float32 holding 0..255, *states) -> (logits (1, classes), *next_states)``. Pure."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.mean = tuple(mean)
        self.std = tuple(std)

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(self.network(normalise(frames[None], self.mean, self.std), *states))


@dataclass(frozen=True)
class StepProgram:
    """A step and the facts that an export needs: example frames, the states' initial values by name, the labels."""

    step: Step
    frames: Tensor
    """``(T, H, W, 3)`` uint8."""
    states: dict[str, Tensor]
    labels: tuple[str, ...]
    delay: int = 0
    """How many frames a prediction is behind the newest one."""
    clip: Callable[[Tensor, bool], Tensor | None] | None = None
    """For steps made by ``program_of`` with ``stream``: the clip network's logits ``(1, classes)`` on all the frames so far
    ``(n, H, W, 3)``, which the steps have to give, and whether those are all of the video; None as long as there are none."""
    flush: Flush | None = None
    """How the steps are told that a video has ended, where they then have more to say."""
    average: Literal["all", "window"] | None = None
    """What predictions are the mean of, where that is known."""
    window: int | None = None
    """The frames of that window."""

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
        """Consecutive frames ``(n, H, W, 3)`` as those of whole steps, ``(S, T, H, W, 3)``."""
        steps = len(frames) // len(self.frames)
        return frames[: steps * len(self.frames)].reshape(steps, *self.frames.shape)


def program_of(spec: NetworkSpec, stream: int | None = None, window: int | None = None, *, proven: bool = False) -> StepProgram:
    """The step program of a network, checked against the contract unless it is ``proven``: a bundle was exported from it.

    With ``stream`` a step takes so many new frames: a clip network's layers get states; one that has states just takes fewer
    frames at a time. With ``window`` its predictions are the mean over so many newest frames, a multiple of ``stream``.

    Raises:
        ClipstepError: the network breaks the contract: names, types or shapes of states and outputs; an input that is written to;
            memory inside the network, chance, or training mode. Or it cannot become steps of so many frames.
    """
    network, about, length = spec.module, dict[str, Any](), spec.frames
    states = initial_states_of(network)
    if stream is not None:
        if not states and not proven:
            _check(spec, network, length, states)
        network, about = streamed(spec, stream, window)
        states, length = initial_states_of(network), stream
    step = Step(network, spec.mean, spec.std).eval() if proven else _check(spec, network, length, states)
    return StepProgram(step, spec.sample.flatten(0, 1)[:length], states, spec.labels, **about)


def _check(spec: NetworkSpec, network: nn.Module, length: int, states: Mapping[str, Tensor]) -> Step:
    """The step of ``length`` frames, held to the contract on the sample's frames, on their negative and on noise."""
    check_modules(network)
    check_weights(network)
    step, frames = Step(network, spec.mean, spec.std).eval(), spec.sample.flatten(0, 1)
    noise = torch.randint(256, frames[:length].shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inputs = dict(zip(input_names(list(states)), (frames[:length], *states.values()), strict=True))
    check_step(network, step, inputs, len(spec.labels), (255 - frames[-length:], noise))
    return step
