"""SlowFastCausalShuffleNet with every temporal convolution causal: it predicts after every new frame, or pair of frames.

The paper's network looks into the future within its subclip, and halves time three times, so it predicts once a subclip.
This one keeps the frame rate after its stem and remembers, for each temporal convolution, the frames before: a step of
two frames gives the same as a clip of all frames so far.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.network.past import Past
from clipstep.training.models.shufflenet3d import shuffle_stages
from clipstep.training.models.slowfast_causal_shufflenet import GROUPS, STAGE_CHANNELS, STAGE_UNITS, STEM_CHANNELS, SlowFastConfig


class FullyCausalPath(nn.Module):
    """A path of the paper's with the same weights, whose kernels reach back in time instead of both ways."""

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
        """The shapes ``(frames, C, H, W)`` of what the layers keep, in their order."""
        shapes: list[tuple[int, ...]] = [(2, channels, side, side)]
        side = -(-side // 2)
        shapes.append((self.buffer_frames, STEM_CHANNELS, side, side))
        side = -(-side // 2)
        units: Any = self.stages
        for unit in units:
            shapes.append((2, unit.depthwise.in_channels, side, side))
            side = -(-side // unit.stride)
        return shapes

    def forward(self, frames: Tensor, past: Past, newest: int = 0) -> Tensor:
        """``(N, channels, T, H, W)`` to the features of this step, ``(N, 480)``: their mean over its frames, or over the
        ``newest`` of them."""
        z = F.relu(self.stem_norm(self.stem(past.extend(frames[:, :, :: self.stride], 2))))
        y = F.relu(self.causal_norm(self.causal(past.extend(z, self.buffer_frames))))
        y = F.max_pool3d(y, kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        for unit in self.stages:
            y = unit(y, past)
        if newest:
            y = y[:, :, -(newest // self.stride) :]
        return y.mean(dim=(2, 3, 4))


class FullyCausalSlowFast(nn.Module):
    """``SlowFastConfig(causal=True)``: parameters as the paper's network, predictions from the mean over all frames so far.

    Its one state ``past`` ``(N, total)`` holds what each temporal convolution remembers, the mean of the features so far and
    how many frames that is; zeros at the start of a video. A step takes any multiple of the larger temporal stride frames.
    """

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        self.config = config
        self.slow = FullyCausalPath(config, config.alpha)
        self.fast = FullyCausalPath(config, config.beta)
        self.classifier = nn.Linear(2 * STAGE_CHANNELS[-1], config.classes)

    def initial_states(self) -> dict[str, Tensor]:
        """The state before a video's first frame, batch 1."""
        kept = [shape for path in (self.slow, self.fast) for shape in path.remembered(self.config.channels, self.config.size)]
        return {"past": Past.initial([*kept, (self.classifier.in_features,), (1,)])}

    def windowed(self, frames: int, window: int) -> "WindowedSlowFast":
        """The network for steps of so many frames whose predictions are the mean over the ``window`` newest ones, in place of all."""
        return WindowedSlowFast(self, frames, window)

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One step: normalised ``(N, 3, T, size, size)`` and the state to ``(logits (N, classes), next state)``. Pure."""
        memory = Past(past)
        now = torch.cat([self.slow(frames, memory), self.fast(frames, memory)], dim=1)
        mean, count = memory.take((self.classifier.in_features,)), memory.take((1,)) + frames.shape[2]
        mean = mean + (now - mean) * frames.shape[2] / count
        memory.keep(mean)
        memory.keep(count)
        return self.classifier(mean), memory.next()


class WindowedSlowFast(nn.Module):
    """The network's predictions from a window of its newest frames: a ring of each step's features takes the place of their mean.

    Its temporal convolutions see the frames before the window as they see them without one.
    """

    def __init__(self, network: FullyCausalSlowFast, frames: int, window: int) -> None:
        super().__init__()
        self.network, self.window, self.steps = network, window, window // frames

    def initial_states(self) -> dict[str, Tensor]:
        """The state before a video's first frame, batch 1."""
        network = self.network
        kept = [shape for path in (network.slow, network.fast) for shape in path.remembered(network.config.channels, network.config.size)]
        return {"past": Past.initial([*kept, (network.classifier.in_features, self.steps - 1), (1,)])}

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """As ``FullyCausalSlowFast.forward``, for steps of one length."""
        memory = Past(past)
        now = torch.cat([self.network.slow(frames, memory), self.network.fast(frames, memory)], dim=1)
        total = memory.sum_of_newest(now, self.steps)
        count = (memory.take((1,)) + 1).clamp(max=self.steps)
        memory.keep(count)
        return self.network.classifier(total / count), memory.next()

    def clip(self, frames: Tensor) -> Tensor:
        """What the steps have to give after all of ``(1, C, n, H, W)``, computed at once."""
        memory = Past(self.network.initial_states()["past"])
        newest = min(self.window, frames.shape[2])
        means = [path(frames, memory, newest) for path in (self.network.slow, self.network.fast)]
        logits: Tensor = self.network.classifier(torch.cat(means, dim=1))
        return logits
