"""3D ShuffleNet V1, the clip network of which the paths of SlowFastCausalShuffleNet are made.

Source: Zhang et al., "ShuffleNet" (2018), table 1 with 3 groups; in 3D by Köpüklü et al., "Resource Efficient 3D
Convolutional Neural Networks" (2019), table 2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.training.models.clip import ClipConfig
from clipstep.training.models.shufflenet3d import shuffle_stages

STAGE_CHANNELS = (240, 480, 960)
STAGE_UNITS = (4, 8, 4)
GROUPS = 3


class ShuffleNet3D(nn.Module):
    """The network: ``forward`` maps frames ``(N, channels, T, size, size)`` to logits ``(N, classes)``; ``width`` scales all channels."""

    def __init__(self, config: ClipConfig, width: float) -> None:
        super().__init__()
        stem, channels = int(24 * width), [int(count * width) for count in STAGE_CHANNELS]
        self.stem = nn.Conv3d(config.channels, stem, 3, stride=(1, 2, 2), padding=1, bias=False)
        self.stem_norm = nn.BatchNorm3d(stem)
        self.stages = shuffle_stages(stem, channels, STAGE_UNITS, GROUPS)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(channels[-1], config.classes)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(frames)))
        x = self.stages(F.max_pool3d(x, 3, stride=2, padding=1)).mean(dim=(2, 3, 4))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits
