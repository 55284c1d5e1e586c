"""Whether a network's own states average over everything so far, so that on a long video a new scene shows ever less."""

import torch

from clipstep.export.step import StepProgram

EARLY, LATE = 8, 32
SHARE = 0.4
"""A mean over all steps then moves by 9/33 = 0.27 of what it moved before; one that decays, or of a window, by as much."""


@torch.no_grad()
def grows_deaf(program: StepProgram) -> bool:
    """Tries it: how far one step of another scene moves the logits after 8 steps of one scene, and after 32.

    A memory that forgets so slowly that 32 steps do not tell it from a mean over everything counts as one.
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
    return moved[LATE] < SHARE * moved[EARLY] and moved[EARLY] > 1e-6
