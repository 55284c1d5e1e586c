"""Gives a network with random weights the statistics of a trained one, so that its errors and times mean something."""

import torch
from torch import Tensor, nn

from clipstep.network.states import initial_states

NORM_BIAS = 0.5
"""The bias of batch norms. With the usual 0, a ReLU behind each of them would cut off half of the values, and a deep network of random weights
would multiply rounding errors by about 1.2 a layer (Yang et al., "A mean field theory of batch normalization", 2019): by 1,000 and more,
which trained networks do not."""


@torch.no_grad()
def fill(network: nn.Module, clips: Tensor, classes: int) -> None:
    """Give the network's batch norms a bias and the statistics of ``clips`` ``(S, 3, T, H, W)``.

    The last layer gets a bias that favours the first class, so that float16 rounding does not change the top class.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms:
        if norm.affine:
            norm.bias.fill_(NORM_BIAS)
        norm.momentum = None  # Running statistics are then plain means over all clips.
        norm.reset_running_stats()
        norm.train()
    for clip in clips if norms else ():
        network(clip[None], *initial_states(network))
    network.eval()
    biases = [module.bias for module in network.modules() if isinstance(module, nn.Linear | nn.Conv3d) and module.bias is not None]
    last = next(bias for bias in reversed(biases) if len(bias) == classes)
    last.copy_(torch.linspace(1, -1, classes))
    last[0] += 1
