"""Golden steps are recorded steps of the eager network: frames, and the logits and states that it computes from them.

This module records them, checks a stream against the clip network, and compares recorded golden steps with newly computed ones.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from clipstep.export.step import StepProgram
from clipstep.runtime.golden import BOUNDS, GoldenSteps, ParityError, flush_points, scale_of, shortest_steps

GOLDEN_STEPS = 16
"""The least number of consecutive steps that an artifact is compared over."""
GOLDEN_STATE_BYTES = 8_000_000
"""The most bytes that the recorded states and kept outputs may take. If those of all steps are larger, only those of the last steps are recorded."""


@torch.no_grad()
def record_golden(program: StepProgram, subclips: torch.Tensor, steps: int | None = None) -> GoldenSteps:
    """Run the eager network for `steps` steps of one stream over `subclips` `(S, T, H, W, channels)`, which are repeated as needed.

    If the end of a video changes the network's prediction (`program.flush`), the flushed logits are recorded too: those of whole videos that end
    after some of the steps. Unless given, `steps` is `GOLDEN_STEPS`, or the number of steps of the shortest video if that is larger.
    """
    frames = len(program.frames)
    steps = steps or max(GOLDEN_STEPS, shortest_steps(program.flush, frames) if program.flush else 0)
    points, flushed = flush_points(program.flush, frames, program.delay, steps), dict[int, np.ndarray]()
    states = list(program.states.values())
    size = sum(state.nbytes for state in states) + sum(4 * math.prod(shape) for shape in program.kept.values())
    logits: list[np.ndarray] = []
    recorded: deque[list[np.ndarray]] = deque(maxlen=max(1, min(steps, GOLDEN_STATE_BYTES // max(1, size))))
    for step in range(steps):
        out, states, kept = program.run(subclips[step % len(subclips)], states)
        logits.append(out[0].numpy())
        recorded.append([value.numpy() for value in (*states, *kept)])
        if step + 1 in points:
            flushed[step + 1] = flush(program, states)[0].numpy()
    after = {name: np.stack(values) for name, values in zip((*program.states, *program.kept), zip(*recorded, strict=True), strict=True)}
    by_state, by_output = ({name: after[name] for name in names} for names in (program.states, program.kept))
    return GoldenSteps(subclips[:steps].numpy(), np.stack(logits), by_state, flushed, by_output)


@torch.no_grad()
def check_steps(program: StepProgram, subclips: torch.Tensor) -> tuple[int, float]:
    """Compare the eager steps of a stream with the clip network on all frames so far, after 1, 2, 4, ... steps and after the last one.

    Where a stream is flushed, the flushed logits are compared too, for the shortest video and for all of this one. `subclips`
    `(S, T, H, W, channels)` are repeated where they are shorter than the delay or the window.

    Returns:
        The number of steps, and the largest error as a share of the logits' range.

    Raises:
        ParityError: the steps do not give the clip network's logits.
    """
    assert program.clip is not None
    states, pairs, frames = list(program.states.values()), [], len(program.frames)
    count = max(GOLDEN_STEPS, len(subclips), program.delay // frames + 4, (program.window or 0) // frames + 2)
    video = subclips[torch.arange(count) % len(subclips)]
    flushed = {shortest_steps(program.flush, frames), count} if program.flush else set()
    for step, subclip in enumerate(video, 1):
        logits, states, kept = program.run(subclip, states)
        so_far = f"after {step} steps of {frames} frames"
        if not step & (step - 1) or step == count:
            pairs.append((so_far, (logits, *kept), program.clip(video[:step].flatten(0, 1), False)))
        if step in flushed:
            pairs.append((f"{so_far}, flushed,", run_flush(program, states), program.clip(video[:step].flatten(0, 1), True)))
    outputs = [(when, got, expected) for when, got, expected in pairs if expected is not None]
    names = ["logits", *program.kept][: len(outputs[0][2])]
    return count, max(
        _largest_difference(name, [(when, got[place], expected[place]) for when, got, expected in outputs]) for place, name in enumerate(names)
    )


def flush(program: StepProgram, states: Sequence[torch.Tensor], *, signal_end: bool = True) -> torch.Tensor:
    """Compute the logits `(1, classes)` of a whole video from the states after its last step.

    Without `signal_end` the network is not told that the video has ended, as if an artifact ignored it."""
    return run_flush(program, states, signal_end=signal_end)[0]


def run_flush(program: StepProgram, states: Sequence[torch.Tensor], *, signal_end: bool = True) -> tuple[torch.Tensor, ...]:
    """Compute the logits and the kept outputs of a whole video, as `flush` does."""
    assert program.flush is not None
    ended, names = program.flush.state if signal_end else None, program.input_names[1:]
    states = [torch.ones_like(state) if name == ended else state for name, state in zip(names, states, strict=True)]
    for _ in range(program.flush.steps):
        logits, states, kept = program.run(torch.zeros_like(program.frames), states)
    return logits, *kept


def _largest_difference(name: str, pairs: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> float:
    """Return the largest difference between an output and the expected one, as a share of the range of all expected ones.

    Each of `pairs` is (when, output, expected)."""
    scale = scale_of(torch.stack([expected for _, _, expected in pairs]).numpy())
    errors = []
    for when, value, expected in pairs:
        errors.append(float((value - expected).abs().max()) / scale)
        if not errors[-1] <= BOUNDS["float32"]:
            raise ParityError(
                f"{when} the {name} are not those of the network on all of them",
                got=f"an error of {errors[-1]:.3g} of their range",
                expected=f"at most {BOUNDS['float32']:g}",
                fix="export it without --stream",
            )
    return max(errors)


def same_golden(recorded: GoldenSteps, computed: GoldenSteps) -> None:
    """Check that the golden steps recorded in a bundle are what the eager network computes today.

    States may be recorded after the last steps only; they are compared after the steps for which both recordings have them.

    Raises:
        ParityError: they differ.
    """
    for (name, new), old in zip(computed.outputs.items(), recorded.outputs.values(), strict=True):
        both = min(len(old), len(new))
        difference = np.abs(old[len(old) - both :] - new[len(new) - both :]).max(initial=0)
        if not difference <= BOUNDS["float32"] * scale_of(new):
            raise ParityError(f"the bundle's golden {name} are not what the eager network computes", fix="export it again")
    for steps in recorded.flushed.keys() & computed.flushed.keys():
        if not np.abs(recorded.flushed[steps] - computed.flushed[steps]).max() <= BOUNDS["float32"] * computed.flushed_scale():
            raise ParityError(f"the bundle's golden logits of a flushed video of {steps} steps are not the eager network's", fix="export it again")
