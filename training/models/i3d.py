"""I3D: Inception-V1 with every kernel inflated into time; one stream.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?" (2017), figure 3; the modules' channels are those of
Szegedy et al., "Going Deeper with Convolutions" (2015), table 1, the 5x5 branch with 3x3x3 kernels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.training.models.clip import ClipConfig, conv_unit

MIXED = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
"""The channels of each module's branches (1x1x1; 1x1x1, 3x3x3; 1x1x1, 3x3x3; after the pool); None for a pool that halves time and space."""


class Mixed(nn.Module):
    """An Inception module: four branches, whose outputs are concatenated."""

    def __init__(self, inputs: int, one: int, before3: int, three: int, before5: int, five: int, pooled: int) -> None:
        super().__init__()
        self.one = conv_unit(inputs, one, 1)
        self.three = nn.Sequential(conv_unit(inputs, before3, 1), conv_unit(before3, three, 3))
        self.five = nn.Sequential(conv_unit(inputs, before5, 1), conv_unit(before5, five, 3))
        self.pooled = conv_unit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(F.max_pool3d(x, 3, stride=1, padding=1))], dim=1)


class HalvingPool(nn.Module):
    """A max pool of kernel 3 and stride 2 on all axes. The paper's last pool has kernel 2 and would need T >= 2; this one takes any T."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(x, 3, stride=2, padding=1)


class I3D(nn.Module):
    """The network: ``forward`` maps frames ``(N, channels, T, size, size)`` to logits ``(N, classes)``."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.conv1 = conv_unit(config.channels, 64, 7, 2)
        self.conv2 = nn.Sequential(conv_unit(64, 64, 1), conv_unit(64, 192, 3))
        modules: list[nn.Module] = []
        last = 192
        for channels in MIXED:
            if channels is None:
                modules.append(HalvingPool())
                continue
            modules.append(Mixed(last, *channels))
            last = channels[0] + channels[2] + channels[4] + channels[5]
        self.mixed = nn.Sequential(*modules)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(last, config.classes)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.max_pool3d(self.conv1(frames), (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        x = F.max_pool3d(self.conv2(x), (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        logits: Tensor = self.classifier(self.dropout(self.mixed(x).mean(dim=(2, 3, 4))))
        return logits
