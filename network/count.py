"""What a network costs: its parameters, and the multiply-accumulates of a call."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clipstep.network.states import initial_states


def parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_accumulates(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of all convolutions and linear layers in one call; module and inputs may be without memory (device ``meta``)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    total: int = counter.get_total_flops() // 2
    return total


def clip_multiply_accumulates(network: nn.Module, channels: int = 3, frames: int = 16, size: int = 112) -> int:
    """``multiply_accumulates`` of a network for one subclip ``(1, channels, frames, size, size)``."""
    device = next(network.parameters()).device
    states = (state.to(device) for state in initial_states(network))
    return multiply_accumulates(network, torch.zeros(1, channels, frames, size, size, device=device), *states)
