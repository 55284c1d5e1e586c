"""3D ResNet-50.

Source: He et al., "Deep Residual Learning" (2016), table 1; in 3D by Hara, Kataoka and Satoh, "Can Spatiotemporal 3D CNNs
Retrace the History of 2D CNNs and ImageNet?" (2018).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.training.models.clip import ClipConfig, shortcut

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""For each stage, the inner channels of a block, number of blocks, and the stride of the first block."""
EXPANSION = 4


class Bottleneck(nn.Module):
    """A bottleneck block: convolutions 1x1x1, 3x3x3 with the stride, and 1x1x1 to four times the channels, and a shortcut."""

    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * middle
        self.conv1, self.norm1 = nn.Conv3d(inputs, middle, 1, bias=False), nn.BatchNorm3d(middle)
        self.conv2, self.norm2 = nn.Conv3d(middle, middle, 3, stride, padding=1, bias=False), nn.BatchNorm3d(middle)
        self.conv3, self.norm3 = nn.Conv3d(middle, outputs, 1, bias=False), nn.BatchNorm3d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class ResNet50(nn.Module):
    """The network: ``forward`` maps frames ``(N, channels, T, size, size)`` to logits ``(N, classes)``."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.stem = nn.Conv3d(config.channels, 64, 7, stride=(1, 2, 2), padding=3, bias=False)
        self.stem_norm = nn.BatchNorm3d(64)
        blocks, last = [], 64
        for middle, count, stride in STAGES:
            for index in range(count):
                blocks.append(Bottleneck(last, middle, stride if index == 0 else 1))
                last = EXPANSION * middle
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(last, config.classes)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(frames)))
        x = self.blocks(F.max_pool3d(x, 3, stride=2, padding=1)).mean(dim=(2, 3, 4))
        logits: Tensor = self.classifier(x)
        return logits
