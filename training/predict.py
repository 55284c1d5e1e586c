"""What a network, or a bundle in its runtime, says after each subclip of a video."""

from typing import Any

import torch
from torch import Tensor, nn

from clipstep.runtime.model import StepModel
from clipstep.training.data.subclips import normalise
from clipstep.training.run import RunInfo


def named_states(network: nn.Module) -> dict[str, Tensor]:
    """The network's states before a video's first subclip by name, batch 1; none if it is a plain clip network."""
    states: Any = getattr(network, "initial_states", dict)
    named: dict[str, Tensor] = states()
    return named


def initial_states(network: nn.Module) -> list[Tensor]:
    """The same without their names, in the order in which the network takes them."""
    return list(named_states(network).values())


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """``(logits, *next_states)`` of a network's result: a clip network may return its logits alone."""
    return result if isinstance(result, tuple) else (result,)


@torch.no_grad()
def video_logits(network: nn.Module, subclips: Tensor, info: RunInfo, *, reset: bool = False) -> Tensor:
    """The logits after each subclip of one video, ``(S, classes)``, from ``(S, T, H, W, channels)`` uint8.

    With ``reset`` the states are the initial ones at each step: what the network knows without its memory.
    """
    device = next(iter(network.parameters()), torch.empty(0)).device
    initial = states = [state.to(device) for state in initial_states(network)]
    every = []
    for subclip in subclips:
        states = initial if reset else states
        logits, *states = outputs_of(network(normalise(subclip[None].to(device), info.mean, info.deviation), *states))
        every.append(logits[0])
    return torch.stack(every)


def bundle_logits(model: StepModel, subclips: Tensor, *, reset: bool = False) -> Tensor:
    """The same from a bundle, by the runtime that executes it."""
    states = model.initial_states()
    every = []
    for subclip in subclips:
        states = model.initial_states() if reset else states
        logits, states = model.step(subclip.numpy(), states)
        every.append(torch.from_numpy(logits.copy()))
    return torch.stack(every)
