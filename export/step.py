"""The step contract: any network as ``step(frames, *states) -> (logits, *next_states)``, batch 1, on camera frames.

A network is any ``nn.Module`` whose ``forward(frames, *states)`` takes normalised ``(N, 3, T, H, W)`` (2 channels
if it sees optical flow) and returns logits ``(N, classes)`` and then the next states, and which, if it has states, says
by ``initial_states()`` how they are called and what they hold at the start of a video.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipstep.export.source import first_line, line_of_error
from clipstep.export.stream.run import streamed
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import Flush
from clipstep.training.data.subclips import normalise
from clipstep.training.predict import named_states, outputs_of
from clipstep.training.run import Run


class Step(nn.Module):
    """``(frames (T, H, W, 3) uint8 RGB or float32 holding 0..255, *states) -> (logits (1, classes), *next_states)``. Pure."""

    def __init__(self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.mean = tuple(mean)
        self.deviation = tuple(deviation)

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(self.network(normalise(frames[None], self.mean, self.deviation), *states))


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
    """Of steps made by :func:`program_of` with ``stream``: the clip network's logits ``(1, classes)`` on all the frames so far
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
        return ["frames", *self.states]

    @property
    def output_names(self) -> list[str]:
        return ["logits", *(f"{name}_out" for name in self.states)]

    def subclips(self, frames: Tensor) -> Tensor:
        """Consecutive frames ``(n, H, W, 3)`` as those of whole steps, ``(S, T, H, W, 3)``."""
        steps = len(frames) // len(self.frames)
        return frames[: steps * len(self.frames)].reshape(steps, *self.frames.shape)


def program_of(run: Run, stream: int | None = None, window: int | None = None) -> StepProgram:
    """The step program of a trained run, checked against the contract.

    With ``stream`` a step takes so many new frames: a clip network's layers get states; one that has states just takes fewer
    frames at a time. With ``window`` its predictions are the mean over so many newest frames, a multiple of ``stream``.

    Raises:
        ClipstepError: the network breaks the contract: a state of rank above 4, or whose shape or type changes; an
            input that is written to; logits that do not fit the labels. Or it cannot become steps of so many frames.
    """
    network, frames = run.network, run.sample.flatten(0, 1)
    about: dict[str, Any] = {}
    if stream is not None:
        network, about = streamed(run, stream, window)
    initial = {name: state.detach() for name, state in named_states(network).items()}
    program = StepProgram(
        Step(network, run.info.mean, run.info.deviation).eval(), frames[: stream or run.sample.shape[1]], initial, run.info.classes, **about
    )
    _check(program)
    return program


def _check_types(program: StepProgram) -> None:
    values = {**dict(program.step.state_dict()), **{f"state {name}": value for name, value in program.states.items()}}
    for name, value in values.items():
        if (value.is_floating_point() or value.is_complex()) and value.dtype != torch.float32:
            raise ClipstepError(f"{name.removeprefix('network.')} is of another type", got=value.dtype, expected=torch.float32, fix="call .float()")


@torch.no_grad()
def _check(program: StepProgram) -> None:
    _check_types(program)
    before = [value.clone() for value in program.inputs]
    kept = {name: value.clone() for name, value in program.step.named_buffers()}
    try:
        logits, *states = program.step(*program.inputs)
    except Exception as error:  # Whatever a user's network raises.
        raise ClipstepError("the network cannot run a step", got=first_line(error), fix=f"it comes from {line_of_error(error)}") from error
    for name, value in program.step.named_buffers():
        if not torch.equal(value, kept[name]):
            raise ClipstepError(
                f"the network writes into its buffer {name.removeprefix('network.')}", expected="a pure function",
                fix="take it as a state and return the next one",
            )  # fmt: skip
    for name, value, old in zip(program.input_names, program.inputs, before, strict=True):
        if not torch.equal(value, old):
            raise ClipstepError(f"the network writes into its input {name}", expected="a pure function", fix="copy it before changing it")
    if not isinstance(logits, Tensor) or logits.shape != (1, len(program.labels)) or logits.dtype != torch.float32:
        got = f"{tuple(logits.shape)} {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ClipstepError("the first output is not the logits", got=got, expected=f"{(1, len(program.labels))} {torch.float32}")
    if len(states) != len(program.states):
        raise ClipstepError("the network returns another number of states", got=len(states), expected=len(program.states))
    for (name, old), new in zip(program.states.items(), states, strict=True):
        if old.ndim > 4 or new.shape != old.shape or new.dtype != old.dtype:
            raise ClipstepError(
                f"state {name} does not fit the contract", got=f"{tuple(old.shape)} {old.dtype} in, {tuple(new.shape)} {new.dtype} out",
                expected="rank 4 or less, the same shape and type in and out",
            )  # fmt: skip
