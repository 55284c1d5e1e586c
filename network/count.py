"""The size of a network: its parameters, and the multiply-accumulates (MACs) of one call."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from clipstep.network.states import initial_states


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Return the MACs of all convolutions and linear layers in one call of ``module``; it and ``inputs`` may be on the device ``meta``."""
    # PyTorch's counter hangs hooks on inputs of submodules that require gradients, and fails on a view of a parameter.
    detached = {name: value.detach() for name, value in module.named_parameters()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(module, detached, inputs)
    total: int = counter.get_total_flops() // 2
    return total


def clip_macs(network: nn.Module, channels: int = 3, frames: int = 16, size: int = 112) -> int:
    """Return the MACs of one step of ``network`` on a subclip ``(1, channels, frames, size, size)``, from its initial states."""
    device = next(network.parameters()).device
    states = (state.to(device) for state in initial_states(network))
    return count_macs(network, torch.zeros(1, channels, frames, size, size, device=device), *states)
