"""The loss of a batch of videos, subclip by subclip, with the states carried along each video."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.network.preprocess import normalise
from clipstep.network.states import initial_states, outputs_of
from clipstep.training.data.subclips import Video


def subclip_losses(
    network: nn.Module,
    videos: Sequence[Video],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    loss: str = "every",
    truncate: int = 1,
    weights: Sequence[float] | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Tensor]:
    """Yield one loss for each window of ``truncate`` subclips; their sum is the loss of the batch, the mean over its videos.

    A video's loss is the cross-entropy after its last subclip (``"last"``, as in the paper) or the mean over all its subclips (``"every"``).
    The states are detached between windows, so that each loss can be back-propagated and its graph freed before the next one: memory does
    not grow with the length of a video. With ``weights``, one for each class, a video's loss is multiplied by its class's; the mean is still over the
    number of videos, whatever classes a batch holds. Videos of different lengths are aligned at their ends:

        position   0   1   2   3
        video a    s0  s1  s2  s3      windows of 2: (0, 1) and (2, 3), counted from the end
        video b        s0  s1  s2
        video c                s0      "last" takes the logits at position 3 only

    A video takes part only from its first subclip on: there is no padding, which would change the statistics of batch norms.
    """
    ordered = sorted(videos, key=lambda video: len(video.subclips), reverse=True)
    lengths = torch.tensor([len(video.subclips) for video in ordered])
    device = next(network.parameters()).device
    labels = torch.tensor([video.label for video in ordered], device=device)
    weight = None if weights is None else torch.tensor(weights, device=device)
    shares = 1 / (lengths * len(ordered)).to(device)
    initial = [state.to(device) for state in initial_states(network)]
    states = [state[:0] for state in initial]
    last, active, window = int(lengths[0]) - 1, 0, torch.zeros((), device=device)
    for position in range(last + 1):
        before, active = active, int((lengths > last - position).sum())
        begun = [state.repeat(active - before, *[1] * (state.ndim - 1)) for state in initial]
        states = [torch.cat(pair) for pair in zip(states, begun, strict=True)]
        subclips = torch.stack([video.subclips[position - last - 1] for video in ordered[:active]]).to(device)
        learns = loss == "every" or position > last - truncate
        with torch.set_grad_enabled(learns), autocast():
            logits, *states = outputs_of(network(normalise(subclips, mean, std), *states))
        if loss == "every":
            window = window + (F.cross_entropy(logits.float(), labels[:active], weight, reduction="none") * shares[:active]).sum()
        elif position == last:
            window = F.cross_entropy(logits.float(), labels, weight, reduction="none").mean()
        if (last - position) % truncate == 0:
            if learns:
                yield window
            window, states = torch.zeros((), device=device), [state.detach() for state in states]
