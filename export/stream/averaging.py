"""Detects a network whose states average over all frames so far: on a long video, new frames change its predictions ever less."""

import torch

from clipstep.export.step import StepProgram

EARLY, LATE = 8, 32
LARGEST_SHARE = 0.4
"""A network counts as averaging over all frames if a step of another scene moves its logits, after LATE steps, by less than this share of what
it moves them after EARLY steps. For a mean over all steps the share is 9/33 = 0.27; for an exponential average, or a window, it is 1."""


@torch.no_grad()
def averages_over_all_frames(program: StepProgram) -> bool:
    """Whether a step of another scene moves the logits much less after 32 steps of one scene than after 8.

    A memory that decays so slowly that 32 steps cannot tell it from a mean over all frames counts as one.
    """
    if not program.states or program.delay:
        return False
    scenes = _scenes(program)
    states, moved = list(program.states.values()), {}
    for step in range(LATE + 1):
        logits, following, _ = program.run(scenes[0], states)
        if step in (EARLY, LATE):
            other, *_ = program.run(scenes[1], states)
            moved[step] = float((other - logits).abs().max())
        states = following
    return moved[LATE] < LARGEST_SHARE * moved[EARLY] and moved[EARLY] > 1e-6


def _scenes(program: StepProgram) -> torch.Tensor:
    """Return two subclips, each the same everywhere: a dark one and a bright one or, on another scale, one below the mean and one above it."""
    frames, step = program.frames, program.step
    if frames.dtype == torch.uint8:
        return torch.stack([torch.full_like(frames, value) for value in (60, 200)])
    return torch.stack([(torch.tensor(step.mean) + side * torch.tensor(step.std)).expand_as(frames) for side in (-1, 1)])
