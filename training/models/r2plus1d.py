"""R(2+1)D with 18 layers, one stream: each 3D convolution is factored into one over space and one over time.

Source: Tran et al., "A Closer Look at Spatiotemporal Convolutions" (2018), table 1 and section 3.5.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.training.models.clip import ClipConfig, shortcut

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""For each stage of two blocks, channels and the stride of the first block."""


def factored(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a 3x3x3 convolution factored into 1x3x3 with M output channels and 3x1x1, with M such that the number of weights stays the same."""
    middle = 27 * inputs * outputs // (9 * inputs + 3 * outputs)
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(),
        nn.Conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(outputs),
    )


class BasicBlock(nn.Module):
    """Two factored convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = factored(inputs, outputs, stride), factored(outputs, outputs, 1)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class R2Plus1D(nn.Module):
    """The network: ``forward`` maps frames ``(N, channels, T, size, size)`` to logits ``(N, classes)``."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(config.channels, 45, (1, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(45),
            nn.ReLU(),
            nn.Conv3d(45, 64, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(),
        )
        blocks, last = [], 64
        for channels, stride in STAGES:
            blocks += [BasicBlock(last, channels, stride), BasicBlock(channels, channels, 1)]
            last = channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(last, config.classes)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.stem(frames)).mean(dim=(2, 3, 4)))
        return logits
