"""The network of the paper's published code. It differs from the paper's text: it buffers frames instead of features.

Each path carries one RGB frame from subclip to subclip, a running mean of the frames that it saw. It puts that frame before the frames of the next
subclip.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.training.models.clip import ClipConfig
from clipstep.training.models.shufflenet3d import shuffle_stages
from clipstep.training.models.slowfast_causal_shufflenet import GROUPS, STAGE_CHANNELS, STAGE_UNITS

STEM_CHANNELS = 24
SLOW_STRIDE = 2


@dataclass(frozen=True)
class PublishedConfig(ClipConfig):
    """The config of a `PublishedSlowFast`. Its shortcuts pool frames in pairs, so that T must be even in all stages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames % 16 or self.size % 4:
            raise ValueError(f"frames is {self.frames} and size {self.size}; expected multiples of 16 and 4")


class PublishedSlowFast(nn.Module):
    """The network of the published code. With 101 classes and T = 16: 613,661 parameters, 97.95 M multiply-accumulates in a step.

    Its states are the buffers of the slow path ``(N, 3, size, size)`` and of the fast path ``(N, 3, size/2, size/2)``; zeros at the start of a video.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        c = STEM_CHANNELS
        self.slow_stem = nn.Conv3d(config.channels, c, (2, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.slow_norm = nn.BatchNorm3d(c)
        self.slow_stages = shuffle_stages(c, STAGE_CHANNELS, STAGE_UNITS, GROUPS, paired_shortcut=True)
        self.fast_stem = nn.Conv3d(config.channels, c, 3, stride=2, padding=(0, 1, 1), bias=False)
        self.fast_norm = nn.BatchNorm3d(c)
        self.fast_stages = shuffle_stages(c, STAGE_CHANNELS, STAGE_UNITS, GROUPS, paired_shortcut=True)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(2 * STAGE_CHANNELS[-1], config.classes)

    def initial_states(self) -> dict[str, Tensor]:
        """Return the states before a video's first subclip, batch 1: zeros, named as ``forward`` names them."""
        c, size = self.config.channels, self.config.size
        return {"slow_buffer": torch.zeros(1, c, size, size), "fast_buffer": torch.zeros(1, c, size // 2, size // 2)}

    def forward(self, frames: Tensor, slow_buffer: Tensor, fast_buffer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``(logits (N, classes), *next buffers)`` for normalised ``frames`` ``(N, 3, T, size, size)`` and both buffers; a pure function."""
        slow = torch.cat([slow_buffer[:, :, None], frames[:, :, ::SLOW_STRIDE]], dim=2)
        small = F.avg_pool3d(frames, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        fast = torch.cat([fast_buffer[:, :, None], small], dim=2)
        x = F.relu(self.slow_norm(self.slow_stem(slow)))
        x = self.slow_stages(F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)))
        y = self.fast_stages(F.relu(self.fast_norm(self.fast_stem(fast))))
        features = torch.cat([x.mean(dim=(2, 3, 4)), y.mean(dim=(2, 3, 4))], dim=1)
        return self.classifier(self.dropout(features)), slow.mean(dim=2), fast.mean(dim=2)
