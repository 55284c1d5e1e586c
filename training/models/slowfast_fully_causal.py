"""SlowFastCausalShuffleNet with causal temporal convolutions only, so that it can predict after each frame, or pair of frames.

The paper's network looks at later frames within a subclip and halves time three times, so that it predicts once for each subclip. This one keeps
the frame rate after its stem, and remembers for each temporal convolution the earlier frames that it reads. Steps of two frames give the same
result as the network applied to all frames so far at once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.network.packed_state import PackedState
from clipstep.training.models.shufflenet3d import shuffle_stages
from clipstep.training.models.slowfast_causal_shufflenet import GROUPS, STAGE_CHANNELS, STAGE_UNITS, STEM_CHANNELS, SlowFastConfig


class FullyCausalPath(nn.Module):
    """A path of the paper's network, with weights of the same shapes, whose temporal kernels only reach back in time."""

    def __init__(self, config: SlowFastConfig, stride: int) -> None:
        super().__init__()
        c = STEM_CHANNELS
        self.stride = stride
        self.buffer_frames = config.buffer_frames
        self.stem = nn.Conv3d(config.channels, c, 3, stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.stem_norm = nn.BatchNorm3d(c)
        self.causal = nn.Conv3d(c, c, (config.buffer_frames + 1, 1, 1), bias=False)
        self.causal_norm = nn.BatchNorm3d(c)
        self.stages = shuffle_stages(c, STAGE_CHANNELS, STAGE_UNITS, GROUPS, causal=True)

    def remembered(self, channels: int, side: int) -> list[tuple[int, ...]]:
        """Return the shapes ``(frames, C, H, W)`` of what the layers remember, in the order of ``forward``."""
        shapes: list[tuple[int, ...]] = [(2, channels, side, side)]
        side = -(-side // 2)
        shapes.append((self.buffer_frames, STEM_CHANNELS, side, side))
        side = -(-side // 2)
        units: Any = self.stages
        for unit in units:
            shapes.append((2, unit.depthwise.in_channels, side, side))
            side = -(-side // unit.stride)
        return shapes

    def forward(self, frames: Tensor, past: PackedState, newest: int = 0) -> Tensor:
        """Return the features ``(N, 480)`` of ``frames`` ``(N, channels, T, H, W)``, the mean over all of them or, if it is not 0, over the
        last ``newest``."""
        z = F.relu(self.stem_norm(self.stem(past.extend(frames[:, :, :: self.stride], 2))))
        y = F.relu(self.causal_norm(self.causal(past.extend(z, self.buffer_frames))))
        y = F.max_pool3d(y, kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        for unit in self.stages:
            y = unit(y, past)
        if newest:
            y = y[:, :, -(newest // self.stride) :]
        return y.mean(dim=(2, 3, 4))


class FullyCausalSlowFast(nn.Module):
    """The network of ``SlowFastConfig(causal=True)``. It has as many parameters as the paper's, and predicts from the mean over all frames so far.

    Its one state ``past`` ``(N, total)`` packs what each temporal convolution remembers, the mean of the features so far, and the number of frames in
    that mean; zeros at the start of a video. The number of frames in a step must be a multiple of the larger temporal stride.
    """

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        self.config = config
        self.slow = FullyCausalPath(config, config.alpha)
        self.fast = FullyCausalPath(config, config.beta)
        self.classifier = nn.Linear(2 * STAGE_CHANNELS[-1], config.classes)

    def initial_states(self) -> dict[str, Tensor]:
        """Return the state before a video's first frame, batch 1: zeros."""
        kept = [shape for path in (self.slow, self.fast) for shape in path.remembered(self.config.channels, self.config.size)]
        return {"past": PackedState.initial([*kept, (self.classifier.in_features,), (1,)])}

    def windowed(self, frames: int, window: int) -> "WindowedSlowFast":
        """Return the network for steps of ``frames`` frames that predicts from the mean over the newest ``window`` frames instead of all."""
        return WindowedSlowFast(self, frames, window)

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(logits (N, classes), next state)`` for normalised ``frames`` ``(N, 3, T, size, size)`` and the state; a pure function."""
        memory = PackedState(past)
        now = torch.cat([self.slow(frames, memory), self.fast(frames, memory)], dim=1)
        mean, count = memory.read((self.classifier.in_features,)), memory.read((1,)) + frames.shape[2]
        mean = mean + (now - mean) * frames.shape[2] / count
        memory.write(mean)
        memory.write(count)
        return self.classifier(mean), memory.next()


class WindowedSlowFast(nn.Module):
    """The network with predictions from a window of its newest frames: it remembers the features of each step in the window instead of their mean.

    Its temporal convolutions still reach back to frames before the window.
    """

    def __init__(self, network: FullyCausalSlowFast, frames: int, window: int) -> None:
        super().__init__()
        self.network, self.window, self.steps = network, window, window // frames

    def initial_states(self) -> dict[str, Tensor]:
        """Return the state before a video's first frame, batch 1: zeros."""
        network = self.network
        kept = [shape for path in (network.slow, network.fast) for shape in path.remembered(network.config.channels, network.config.size)]
        return {"past": PackedState.initial([*kept, (network.classifier.in_features, self.steps - 1), (1,)])}

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same as `FullyCausalSlowFast.forward`, for steps that are all of the same length."""
        memory = PackedState(past)
        now = torch.cat([self.network.slow(frames, memory), self.network.fast(frames, memory)], dim=1)
        total = memory.sum_of_newest(now, self.steps)
        count = (memory.read((1,)) + 1).clamp(max=self.steps)
        memory.write(count)
        return self.network.classifier(total / count), memory.next()

    def clip(self, frames: Tensor) -> Tensor:
        """Return what the steps must give after all ``frames`` ``(1, C, n, H, W)``, computed at once; tests and exports compare with it."""
        memory = PackedState(self.network.initial_states()["past"])
        newest = min(self.window, frames.shape[2])
        means = [path(frames, memory, newest) for path in (self.network.slow, self.network.fast)]
        logits: Tensor = self.network.classifier(torch.cat(means, dim=1))
        return logits
