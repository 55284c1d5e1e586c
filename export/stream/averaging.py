"""Detects a network whose states average over all frames so far: on a long video, new frames change its predictions ever less."""

import torch

from clipstep.export.step import StepProgram

EARLY, LATE = 8, 32
LARGEST_SHARE = 0.4
"""After LATE steps a new frame moves a mean over all steps by 9/33 = 0.27 of what it moves it after EARLY; it moves an exponential
average, or one over a window, by as much as before."""


@torch.no_grad()
def averages_over_all_frames(program: StepProgram) -> bool:
    """Whether a step of another scene moves the logits much less after 32 steps of one scene than after 8.

    A memory that decays so slowly that 32 steps cannot tell it from a mean over all frames counts as one.
    """
    if not program.states or program.delay:
        return False
    scenes = torch.stack([torch.full_like(program.frames, value) for value in (60, 200)])
    states, moved = list(program.states.values()), {}
    for step in range(LATE + 1):
        logits, *following = program.step(scenes[0], *states)
        if step in (EARLY, LATE):
            other, *_ = program.step(scenes[1], *states)
            moved[step] = float((other - logits).abs().max())
        states = following
    return moved[LATE] < LARGEST_SHARE * moved[EARLY] and moved[EARLY] > 1e-6
