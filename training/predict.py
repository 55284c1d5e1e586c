"""What a network, or a bundle in its runtime, says after each subclip of a video."""

import torch
from torch import Tensor, nn

from clipstep.network.preprocess import normalise
from clipstep.network.states import initial_states, outputs_of
from clipstep.runtime.model import StepModel
from clipstep.runtime.session import Session
from clipstep.runtime.video import VideoError
from clipstep.training.run import RunInfo


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
        logits, *states = outputs_of(network(normalise(subclip[None].to(device), info.mean, info.std), *states))
        every.append(logits[0])
    return torch.stack(every)


def bundle_logits(model: StepModel, subclips: Tensor, *, reset: bool = False) -> Tensor:
    """The same from a bundle, by the runtime that executes it: of a bundle with a delay, only those after the subclips since it
    has passed, so that there may be fewer than subclips.

    The last ones are those of the whole video, whose end is flushed. With ``reset`` each subclip is a whole video.

    Raises:
        VideoError: the video is shorter than the bundle needs.
    """
    session, every = Session(model), []
    for index, subclip in enumerate(subclips, 1):
        logits = session.step(subclip.numpy())
        if reset or index == len(subclips):
            whole = session.flush()
            logits = logits if whole is None else whole
        if logits is not None:
            every.append(torch.from_numpy(logits.copy()))
    if not every:
        frames, needed = subclips.shape[1], model.interface.frames_needed
        raise VideoError("too short", got=f"{len(subclips) * frames} frames in whole steps of {frames}", expected=f"at least {needed}")
    return torch.stack(every)
