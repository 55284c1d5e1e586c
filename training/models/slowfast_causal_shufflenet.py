"""SlowFastCausalShuffleNet: two causal 3D ShuffleNet paths, each with a stream buffer.

Source: Zhao and Zheng, "3D Causal ShuffleNet in Dual Paths for Efficient Action Recognition".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.training.models.clip import ClipConfig
from clipstep.training.models.shufflenet3d import shuffle_stages

STEM_CHANNELS = 12
STAGE_CHANNELS = (120, 240, 480)
STAGE_UNITS = (4, 8, 4)
GROUPS = 3


@dataclass(frozen=True)
class SlowFastConfig(ClipConfig):
    """The config of a `SlowFastCausalShuffleNet`.

    Beside the config of any network: ``alpha`` and ``beta`` are the temporal strides of the slow and the fast path, with ``alpha / beta = 2`` in the
    paper; ``buffer_frames`` is the paper's b, the number of frames of features that a path carries from one subclip to the next in its stream
    buffer. ``causal`` selects the fully causal network of `slowfast_fully_causal`.
    """

    alpha: int = 2
    beta: int = 1
    buffer_frames: int = 1
    causal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.causal:
            if self.frames % self.alpha or self.frames % self.beta:
                raise ValueError(
                    f"frames is {self.frames}; expected a multiple of alpha {self.alpha} and beta {self.beta}, so that all steps are alike"
                )
            return
        shortest = -(-self.frames // max(self.alpha, self.beta))
        if self.buffer_frames > shortest:
            raise ValueError(
                f"buffer_frames is {self.buffer_frames}, but a path sees only {shortest} of {self.frames} frames; "
                "expected at most as many buffer frames as a path sees"
            )


PRESETS: dict[str, dict[str, int]] = {
    "a2b1": {"alpha": 2, "beta": 1},
    "a4b2": {"alpha": 4, "beta": 2},
    "causal": {"alpha": 2, "beta": 1, "causal": True},
}


class CausalPath(nn.Module):
    """One path: stem, stream buffer, causal convolution, max pool, three ShuffleNet stages, global average pool."""

    def __init__(self, channels: int, stride: int, buffer_frames: int) -> None:
        super().__init__()
        c = STEM_CHANNELS
        self.stride = stride
        self.buffer_frames = buffer_frames
        self.stem = nn.Conv3d(channels, c, 3, stride=(1, 2, 2), padding=1, bias=False)
        self.stem_norm = nn.BatchNorm3d(c)
        self.causal = nn.Conv3d(c, c, (buffer_frames + 1, 1, 1), bias=False)
        self.causal_norm = nn.BatchNorm3d(c)
        self.stages = shuffle_stages(c, STAGE_CHANNELS, STAGE_UNITS, GROUPS)

    def forward(self, frames: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features ``(N, 480)`` of ``frames`` ``(N, channels, T, H, W)``, and the next ``buffer`` ``(N, 12 * b, H/2, W/2)``."""
        z = F.relu(self.stem_norm(self.stem(frames[:, :, :: self.stride])))
        past = buffer.reshape(-1, STEM_CHANNELS, self.buffer_frames, *z.shape[3:])
        y = self.causal_norm(self.causal(torch.cat([past, z], dim=2)))
        # The newest frames are what the next subclip needs (the paper's figure 1; its text says "first").
        next_buffer = y[:, :, -self.buffer_frames :].reshape(buffer.shape)
        y = F.max_pool3d(F.relu(y), kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        return self.stages(y).mean(dim=(2, 3, 4)), next_buffer


class SlowFastCausalShuffleNet(nn.Module):
    """The network of the paper, with two paths. With 101 classes and T = 16: 612,509 parameters, 168.15 M multiply-accumulates in a step.

    Its states are the buffers of both paths, ``(N, 12 * b, size/2, size/2)``, channel-major, zeros at the start of a video.

    Example:
        ```python
        network = SlowFastCausalShuffleNet(SlowFastConfig(classes=101)).eval()
        logits, *buffers = network(torch.zeros(1, 3, 16, 112, 112), *network.initial_states().values())
        ```
    """

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        self.config = config
        self.slow = CausalPath(config.channels, config.alpha, config.buffer_frames)
        self.fast = CausalPath(config.channels, config.beta, config.buffer_frames)
        self.classifier = nn.Linear(2 * STAGE_CHANNELS[-1], config.classes)

    def initial_states(self) -> dict[str, Tensor]:
        """Return the states before a video's first subclip, batch 1: zeros, named as ``forward`` names them."""
        side = -(-self.config.size // 2)
        shape = (1, STEM_CHANNELS * self.config.buffer_frames, side, side)
        return {"slow_buffer": torch.zeros(shape), "fast_buffer": torch.zeros(shape)}

    def forward(self, frames: Tensor, slow_buffer: Tensor, fast_buffer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``(logits (N, classes), *next buffers)`` for normalised ``frames`` ``(N, 3, T, size, size)`` and both buffers; a pure function."""
        slow, slow_next = self.slow(frames, slow_buffer)
        fast, fast_next = self.fast(frames, fast_buffer)
        return self.classifier(torch.cat([slow, fast], dim=1)), slow_next, fast_next
