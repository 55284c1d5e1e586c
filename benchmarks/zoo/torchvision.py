"""The video networks of torchvision, with random weights."""

from functools import partial

from torch import nn
from torchvision.models import video


def _network(name: str) -> nn.Module:
    network: nn.Module = getattr(video, name)(weights=None)
    return network.eval()


r3d_18 = partial(_network, "r3d_18")
mc3_18 = partial(_network, "mc3_18")
r2plus1d_18 = partial(_network, "r2plus1d_18")
s3d = partial(_network, "s3d")
mvit_v1_b = partial(_network, "mvit_v1_b")
mvit_v2_s = partial(_network, "mvit_v2_s")
swin3d_t = partial(_network, "swin3d_t")
