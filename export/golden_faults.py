"""Records golden steps that detect faults, and tells which ones they would not detect.

Golden steps prove something only if their outputs would differ in a faulty artifact. So each usual fault, such as red and blue exchanged,
is injected into the eager network: a fault that moves an output beyond the bound would be detected in an artifact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from clipstep.export.golden_steps import flush, record_golden
from clipstep.export.step import Step, StepProgram
from clipstep.network.preprocess import RGB
from clipstep.runtime.bundle.manifest import FrameSource
from clipstep.runtime.golden import BOUNDS, GoldenSteps

MEAN_OFFSET = 2.55
"""How much the faulty mean of each channel is off, in levels of 0..255: 1 %."""
MEAN_SHARE = 0.05
"""The same for frames of float32, as a share of the standard deviation of their channel."""
STD_FACTOR = 1.01
STATE_OFFSET = 0.1
"""How much a faulty initial value is off, as a share of the state's range."""
SYNTHETIC_SUBCLIPS = 8
END_IGNORED = "the end of a video ignored"


@dataclass(frozen=True)
class Fault:
    """A fault that an artifact may have, as a change of the eager network's stream: its frames, its states, or its step."""

    name: str
    step: Step
    initial: Sequence[Tensor]
    """The initial states."""
    frames: Callable[[Tensor], Tensor] = lambda subclip: subclip
    """Changes the frames before they go into a step."""
    states: Callable[[list[Tensor]], Sequence[Tensor]] = lambda states: states
    """Changes the states that a step returned."""


@dataclass(frozen=True)
class AssessedGolden:
    """Golden steps, where their frames are from, and the names of the faults that they do not detect."""

    golden: GoldenSteps
    frame_sources: tuple[FrameSource, ...]
    undetected_faults: tuple[str, ...]


def record_assessed_golden(program: StepProgram, subclips: Tensor, content: FrameSource) -> AssessedGolden:
    """Record golden steps on `subclips` `(S, T, H, W, channels)`, followed by synthetic ones if these detect more faults."""
    golden = record_golden(program, subclips)
    given = AssessedGolden(golden, (content,), undetected_faults(program, golden))
    if not given.undetected_faults or content == "synthetic":
        return given
    drawn = torch.from_numpy(program.synthetic(SYNTHETIC_SUBCLIPS))
    golden = record_golden(program, torch.cat([subclips[:SYNTHETIC_SUBCLIPS], drawn]))
    extended = AssessedGolden(golden, (content, "synthetic"), undetected_faults(program, golden))
    return extended if len(extended.undetected_faults) < len(given.undetected_faults) else given


def undetected_faults(program: StepProgram, golden: GoldenSteps) -> tuple[str, ...]:
    """Return the names of the faults that leave every output of the golden steps within the float32 bound."""
    names = [fault.name for fault in faults(program, golden) if not _is_detected(fault, golden)]
    return (*names, END_IGNORED) if golden.flushed and not _ignored_end_is_detected(program, golden) else tuple(names)


def faults(program: StepProgram, golden: GoldenSteps) -> Iterator[Fault]:
    """Yield the faults that are possible for a step of such inputs and states."""
    frames, step, initial = program.frames, program.step, list(program.states.values())
    if frames.shape[-1] > 1:
        yield Fault(_exchanged_channels(program), step, initial, frames=lambda subclip: subclip.flip(-1))
    yield from _place_faults(program)
    if len(frames) > 1:
        yield Fault("time reversed", step, initial, frames=lambda subclip: subclip.flip(0))
    offsets = [MEAN_OFFSET] * len(step.mean) if frames.dtype == torch.uint8 else [MEAN_SHARE * value for value in step.std]
    yield Fault("another mean", step.normalised_by([value + offset for value, offset in zip(step.mean, offsets, strict=True)], step.std), initial)
    yield Fault("another std", step.normalised_by(step.mean, [value * STD_FACTOR for value in step.std]), initial)
    yield from _state_faults(program, golden)


def _exchanged_channels(program: StepProgram) -> str:
    if program.input.kind == "video":
        return "red and blue exchanged" if program.frames.shape[-1] == RGB else "the directions exchanged"
    return "the channels reversed"


def _place_faults(program: StepProgram) -> Iterator[Fault]:
    """Yield the faults of where things are in a frame."""
    step, initial, places = program.step, list(program.states.values()), program.frames.shape[1:-1]
    if program.input.kind == "joints":
        if places[-1] > 1:
            yield Fault("the joints reversed", step, initial, frames=lambda subclip: subclip.flip(-2))
    elif places[0] == places[1]:
        yield Fault("height and width exchanged", step, initial, frames=lambda subclip: subclip.transpose(1, 2))


def _state_faults(program: StepProgram, golden: GoldenSteps) -> Iterator[Fault]:
    step, names, initial = program.step, list(program.states), list(program.states.values())
    for index, name in enumerate(names):
        wrong = [value + STATE_OFFSET * golden.scale(name) if index == other else value for other, value in enumerate(initial)]
        yield Fault(f"another initial value of {name}", step, wrong)
    for one, other in combinations(range(len(names)), 2):
        if initial[one].shape == initial[other].shape:
            yield Fault(f"{names[one]} and {names[other]} exchanged", step, initial, states=partial(_exchanged, one, other))
    if names:
        yield Fault("the states forgotten", step, initial, states=lambda _: initial)


def _exchanged(one: int, other: int, states: list[Tensor]) -> list[Tensor]:
    states = list(states)
    states[one], states[other] = states[other], states[one]
    return states


@torch.no_grad()
def _is_detected(fault: Fault, golden: GoldenSteps) -> bool:
    """Whether an output is off at any step; most faults are detected at the first one."""
    bounds = {name: BOUNDS["float32"] * golden.scale(name) for name in golden.outputs}
    states: Sequence[Tensor] = fault.initial
    for step in range(len(golden.logits)):
        subclip = torch.from_numpy(golden.subclips[step % len(golden.subclips)])
        try:
            logits, *others = fault.step(fault.frames(subclip), *states)
        except Exception:  # An assertion about values in the network. An artifact has no assertions, so what it would compute is unknown.
            return False
        states = fault.states(others[: len(golden.states)])
        for (name, values), value in zip(golden.outputs.items(), (logits[0], *states, *others[len(golden.states) :]), strict=True):
            left_out = len(golden.logits) - len(values)
            if step >= left_out and not float((value - torch.from_numpy(values[step - left_out])).abs().max()) <= bounds[name]:
                return True
    return False


@torch.no_grad()
def _ignored_end_is_detected(program: StepProgram, golden: GoldenSteps) -> bool:
    """Whether the logits of a flushed video are off if the network is not told that the video has ended."""
    states: Sequence[Tensor] = list(program.states.values())
    for step in range(max(golden.flushed)):
        _, states, _ = program.run(torch.from_numpy(golden.subclips[step % len(golden.subclips)]), states)
        if step + 1 in golden.flushed:
            difference = flush(program, states, signal_end=False)[0] - torch.from_numpy(golden.flushed[step + 1])
            if not float(difference.abs().max()) <= BOUNDS["float32"] * golden.scale("logits"):
                return True
    return False
