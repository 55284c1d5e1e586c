"""The networks of PyTorchVideo, with random weights. Those that end in a softmax do without it, so that logits are compared."""

from functools import partial
from typing import Any

from fvcore.nn.squeeze_excitation import SqueezeExcitation
from pytorchvideo.models import hub
from pytorchvideo.models.csn import create_csn
from torch import Tensor, nn
from torch.nn import functional as F

NEWEST = 13
"""The frames that a squeeze-and-excitation of Co-X3D takes the mean of: those of an X3D-S clip."""


def _network(name: str, **settings: Any) -> nn.Module:
    network: nn.Module = getattr(hub, name)(pretrained=False, **settings)
    return network.eval()


x3d_xs = partial(_network, "x3d_xs", head_activation=None)
x3d_s = partial(_network, "x3d_s", head_activation=None)
x3d_m = partial(_network, "x3d_m", head_activation=None)
efficient_x3d_xs = partial(_network, "efficient_x3d_xs")
efficient_x3d_s = partial(_network, "efficient_x3d_s")
slow_r50 = partial(_network, "slow_r50")
c2d_r50 = partial(_network, "c2d_r50")
i3d_r50 = partial(_network, "i3d_r50")
slowfast_r50 = partial(_network, "slowfast_r50")


def csn_r50() -> nn.Module:
    """ir-CSN of 50 layers for 16 frames of 112x112, whose last pool has the size that is left of them; the hub's has 101 layers."""
    network: nn.Module = create_csn(model_depth=50, stem_pool=nn.MaxPool3d, head_pool_kernel_size=(2, 4, 4))
    return network.eval()


class _OfNewest(nn.Module):
    """A squeeze-and-excitation of each frame by the mean over it and the frames before it, `NEWEST` in all."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        frames = F.pad(x.mean((3, 4), keepdim=True), (0, 0, 0, 0, NEWEST - 1, 0))
        output: Tensor = x * self.block(F.avg_pool3d(frames, (NEWEST, 1, 1), 1))
        return output


def co_x3d_s() -> nn.Module:
    """X3D-S for streams: its squeeze-and-excitations see the newest frames, not the whole clip.

    Source: Hedegaard and Iosifidis, "Continual 3D Convolutional Neural Networks for Real-time Processing of Videos" (2022).
    """
    network = x3d_s()
    for module in list(network.modules()):
        for name, part in module.named_children():
            if isinstance(part, SqueezeExcitation):
                setattr(module, name, _OfNewest(part.block))
    return network
