"""Golden steps that prove something: each usual mistake in an artifact must move an output of theirs beyond the bound.

A mistake is tried in the eager network, so that what the steps cannot show is known before an artifact relies on them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from clipstep.export.step import Step, StepProgram
from clipstep.export.verification import flush, record_golden
from clipstep.network.preprocess import RGB
from clipstep.runtime.golden import BOUNDS, GoldenSteps
from clipstep.runtime.manifest import GoldenContent
from clipstep.runtime.synthetic import synthetic_subclips

SHIFT = 2.55
"""How much the mean of each channel is wrong, in levels of 0..255; the standard deviation is wrong by 1 %."""
STATE_SHARE = 0.1
"""How much an initial value is wrong, as a share of the state's scale."""
SYNTHETIC_SUBCLIPS = 8
END_IGNORED = "the end of a video ignored"


@dataclass(frozen=True)
class Mistake:
    """What an artifact might do wrong: other frames, initial states or states from step to step, or another step."""

    name: str
    step: Step
    initial: Sequence[Tensor]
    frames: Callable[[Tensor], Tensor] = lambda subclip: subclip
    states: Callable[[list[Tensor]], Sequence[Tensor]] = lambda states: states


@dataclass(frozen=True)
class Recorded:
    """Golden steps, what their frames are, and the mistakes that they cannot show."""

    golden: GoldenSteps
    content: tuple[GoldenContent, ...]
    cannot_show: tuple[str, ...]


def record_telling(program: StepProgram, subclips: Tensor, content: GoldenContent) -> Recorded:
    """Golden steps on ``subclips`` ``(S, T, H, W, channels)``, and on synthetic ones after them where those show more mistakes."""
    golden = record_golden(program, subclips)
    found = Recorded(golden, (content,), unseen(program, golden))
    if not found.cannot_show or content == "synthetic":
        return found
    drawn = torch.from_numpy(synthetic_subclips(SYNTHETIC_SUBCLIPS, *program.frames.shape))
    golden = record_golden(program, torch.cat([subclips[:SYNTHETIC_SUBCLIPS], drawn]))
    more = Recorded(golden, (content, "synthetic"), unseen(program, golden))
    return more if len(more.cannot_show) < len(found.cannot_show) else found


def unseen(program: StepProgram, golden: GoldenSteps) -> tuple[str, ...]:
    """The mistakes that leave every output of the golden steps within the float32 bound."""
    names = [mistake.name for mistake in mistakes(program, golden) if not _is_seen(mistake, golden)]
    return (*names, END_IGNORED) if golden.flushed and not _end_is_seen(program, golden) else tuple(names)


def mistakes(program: StepProgram, golden: GoldenSteps) -> Iterator[Mistake]:
    """Those that a network of such inputs and states can suffer."""
    frames, height, width, channels = program.frames.shape
    step, initial = program.step, list(program.states.values())
    yield Mistake("red and blue exchanged" if channels == RGB else "the directions exchanged", step, initial, frames=lambda subclip: subclip.flip(3))
    if height == width:
        yield Mistake("height and width exchanged", step, initial, frames=lambda subclip: subclip.transpose(1, 2))
    if frames > 1:
        yield Mistake("time reversed", step, initial, frames=lambda subclip: subclip.flip(0))
    yield Mistake("another mean", Step(step.network, [value + SHIFT for value in step.mean], step.std), initial)
    yield Mistake("another std", Step(step.network, step.mean, [value * 1.01 for value in step.std]), initial)
    yield from _of_states(program, golden)


def _of_states(program: StepProgram, golden: GoldenSteps) -> Iterator[Mistake]:
    step, names, initial = program.step, list(program.states), list(program.states.values())
    for place, name in enumerate(names):
        wrong = [value + STATE_SHARE * golden.scale(name) if place == other else value for other, value in enumerate(initial)]
        yield Mistake(f"another initial value of {name}", step, wrong)
    for one, other in combinations(range(len(names)), 2):
        if initial[one].shape == initial[other].shape:
            yield Mistake(f"{names[one]} and {names[other]} exchanged", step, initial, states=partial(_exchanged, one, other))
    if names:
        yield Mistake("the states forgotten", step, initial, states=lambda _: initial)


def _exchanged(one: int, other: int, states: list[Tensor]) -> list[Tensor]:
    states = list(states)
    states[one], states[other] = states[other], states[one]
    return states


@torch.no_grad()
def _is_seen(mistake: Mistake, golden: GoldenSteps) -> bool:
    """Whether an output is off at some step; most mistakes are seen at the first."""
    bounds = {name: BOUNDS["float32"] * golden.scale(name) for name in golden.outputs}
    states: Sequence[Tensor] = mistake.initial
    for step in range(len(golden.logits)):
        subclip = torch.from_numpy(golden.subclips[step % len(golden.subclips)])
        try:
            logits, *after = mistake.step(mistake.frames(subclip), *states)
        except Exception:  # An assertion of the network about its values, which no artifact has: what one would compute is not known.
            return False
        states = mistake.states(after)
        for (name, values), value in zip(golden.outputs.items(), (logits[0], *states), strict=True):
            left_out = len(golden.logits) - len(values)
            if step >= left_out and not float((value - torch.from_numpy(values[step - left_out])).abs().max()) <= bounds[name]:
                return True
    return False


@torch.no_grad()
def _end_is_seen(program: StepProgram, golden: GoldenSteps) -> bool:
    """Whether a flushed video's logits are off where the network is not told that it has ended, and takes black frames for more of it."""
    states: Sequence[Tensor] = list(program.states.values())
    for step in range(max(golden.flushed)):
        _, *states = program.step(torch.from_numpy(golden.subclips[step % len(golden.subclips)]), *states)
        if step + 1 in golden.flushed:
            difference = flush(program, states, told=False)[0] - torch.from_numpy(golden.flushed[step + 1])
            if not float(difference.abs().max()) <= BOUNDS["float32"] * golden.scale("logits"):
                return True
    return False
