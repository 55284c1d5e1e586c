"""The rounding error of a network in float32: artifacts cannot be expected to do better."""

import copy

import torch
from torch import Tensor

from clipstep.export.step import StepProgram
from clipstep.network.preprocess import normalise

SUBCLIPS = 3


@torch.no_grad()
def float32_error(program: StepProgram, subclips: Tensor) -> float:
    """Return the largest relative error of the network in float32 against float64, on the first ``subclips`` ``(S, T, H, W, channels)`` uint8."""
    step, states = program.step, tuple(program.states.values())
    exact, errors = copy.deepcopy(step.network).double(), []
    for subclip in subclips[:SUBCLIPS]:
        frames = normalise(subclip[None], step.mean, step.std)
        logits = step.outputs(step.network(frames, *states))[0]
        expected = step.outputs(exact(frames.double(), *(state.double() for state in states)))[0]
        errors.append(float((logits - expected).abs().max() / expected.abs().max().clamp(min=1)))
    return max(errors)
