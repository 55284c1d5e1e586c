"""3D MobileNet V1.

Source: Howard et al., "MobileNets" (2017), table 1; in 3D by Köpüklü et al., "Resource Efficient 3D Convolutional
Neural Networks" (2019).
"""

from torch import Tensor, nn

from clipstep.training.models.clip import ClipConfig, conv_unit

BLOCKS = ((64, 1, 2), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 1))
"""For each stage, output channels, number of blocks, and the stride of the first block on all three axes."""


class MobileNet3D(nn.Module):
    """The network: ``forward`` maps frames ``(N, channels, T, size, size)`` to logits ``(N, classes)``, at width 1.0."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        layers, last = [conv_unit(config.channels, 32, 3, (1, 2, 2))], 32
        for channels, count, stride in BLOCKS:
            for index in range(count):
                layers += [conv_unit(last, last, 3, stride if index == 0 else 1, groups=last), conv_unit(last, channels, 1, 1)]
                last = channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(last, config.classes)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(frames).mean(dim=(2, 3, 4)))
        return logits
