"""MoViNet-A0-stream with random weights: a streaming network to compare costs with.

Source: Kondratyuk et al., "MoViNets: Mobile Video Networks for Efficient Video Recognition" (2021), section 3.2 and table 7 of the appendix. Its
states are packed into one: the buffers of its temporal convolutions, and the running means of its squeeze-and-excitations and its head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipstep.network.packed_state import PackedState

SIZE = 172
"""Height and width of its frames, in pixels."""
CLASSES = 600
STEM, PROJECTED, HEAD = 8, 480, 2048


@dataclass(frozen=True)
class Layer:
    """A bottleneck: its output channels, inner channels, kernel size in time and in space, and spatial stride."""

    channels: int
    inside: int
    time: int
    plane: int
    stride: int = 1


LAYERS = (
    Layer(8, 24, 1, 5, 2),
    Layer(32, 80, 3, 3, 2),
    Layer(32, 80, 3, 3),
    Layer(32, 80, 3, 3),
    Layer(56, 184, 5, 3, 2),
    Layer(56, 112, 3, 3),
    Layer(56, 184, 3, 3),
    Layer(56, 184, 5, 3),
    Layer(56, 184, 3, 3),
    Layer(56, 184, 3, 3),
    Layer(56, 184, 3, 3),
    Layer(104, 384, 5, 3, 2),
    Layer(104, 280, 1, 5),
    Layer(104, 280, 1, 5),
    Layer(104, 344, 1, 5),
)


class MovinetState(PackedState):
    """The packed state during one step; its last number is the count of frames before this step."""

    @property
    def count(self) -> Tensor:
        """The number of frames before this step, ``(N, 1)``."""
        return self.packed[:, -1:]


def mean_so_far(x: Tensor, past: MovinetState) -> Tensor:
    """Return, for ``x`` ``(1, C, T, 1, 1)``, the mean of each frame and all frames before it."""
    total = past.read(x.shape[1:2]).reshape(1, -1, 1, 1, 1) + x.cumsum(2)
    past.write(total[:, :, -1])
    counts = past.count.reshape(1, 1, 1, 1, 1) + torch.arange(1.0, x.shape[2] + 1).reshape(1, 1, -1, 1, 1)
    return total / counts


def _norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, eps=1e-3)


class Bottleneck(nn.Module):
    """A bottleneck: expansion, a (2+1)D depthwise convolution that is causal in time, squeeze-and-excitation, projection, and a shortcut."""

    def __init__(self, before: int, layer: Layer) -> None:
        super().__init__()
        inside, k = layer.inside, layer.plane
        self.time = layer.time
        self.expand = nn.Sequential(nn.Conv3d(before, inside, 1, bias=False), _norm(inside), nn.Hardswish())
        stride, padding = (1, layer.stride, layer.stride), (0, k // 2, k // 2)
        self.in_plane = nn.Sequential(nn.Conv3d(inside, inside, (1, k, k), stride, padding, groups=inside, bias=False), _norm(inside), nn.Hardswish())
        self.over_time = (
            nn.Sequential(nn.Conv3d(inside, inside, (layer.time, 1, 1), groups=inside, bias=False), _norm(inside), nn.Hardswish())
            if layer.time > 1
            else nn.Identity()
        )
        squeezed = max(8, (inside // 4 + 4) // 8 * 8)
        self.squeeze = nn.Sequential(nn.Conv3d(2 * inside, squeezed, 1), nn.Hardswish(), nn.Conv3d(squeezed, inside, 1), nn.Hardsigmoid())
        self.project = nn.Sequential(nn.Conv3d(inside, layer.channels, 1, bias=False), _norm(layer.channels))
        pool = nn.AvgPool3d((1, 3, 3), stride, (0, 1, 1), count_include_pad=False) if layer.stride > 1 else nn.Identity()
        same = layer.stride == 1 and before == layer.channels
        self.shortcut = nn.Identity() if same else nn.Sequential(pool, nn.Conv3d(before, layer.channels, 1, bias=False), _norm(layer.channels))

    def forward(self, x: Tensor, past: MovinetState) -> Tensor:
        y = self.in_plane(self.expand(x))
        if self.time > 1:
            _, channels, _, height, width = y.shape
            y = torch.cat([past.read((channels, self.time - 1, height, width)), y], 2)
            past.write(y[:, :, -(self.time - 1) :])
            y = self.over_time(y)
        each = y.mean((3, 4), keepdim=True)
        y = y * self.squeeze(torch.cat([mean_so_far(each, past), each], 1))
        output: Tensor = self.shortcut(x) + self.project(y)
        return output


class MoViNetA0Stream(nn.Module):
    """The network: ``forward(frames, past)`` takes frames ``(1, 3, T, 172, 172)`` and returns logits ``(1, 600)`` and the next ``past``."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stem = nn.Sequential(nn.Conv3d(3, STEM, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False), _norm(STEM), nn.Hardswish())
            channels = [STEM, *(layer.channels for layer in LAYERS)]
            self.layers = nn.ModuleList(Bottleneck(before, layer) for before, layer in zip(channels, LAYERS, strict=False))
            self.project = nn.Sequential(nn.Conv3d(channels[-1], PROJECTED, 1, bias=False), _norm(PROJECTED), nn.Hardswish())
            self.head = nn.Sequential(nn.Linear(PROJECTED, HEAD), nn.Hardswish(), nn.Linear(HEAD, CLASSES))

    def initial_states(self) -> dict[str, Tensor]:
        """Return the state before the first frame: zeros."""
        return {"past": torch.zeros(1, sum(self._sizes()) + 1)}

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        states = MovinetState(past)
        x = self.stem(frames)
        for layer in self.layers:
            x = layer(x, states)
        x = mean_so_far(self.project(x).mean((3, 4), keepdim=True), states)
        states.write(states.count + frames.shape[2])
        return self.head(x[:, :, -1].flatten(1)), states.next()

    def _sizes(self) -> list[int]:
        side, sizes = -(-SIZE // 2), []
        for layer in LAYERS:
            side = -(-side // layer.stride)
            sizes += [layer.inside * (layer.time - 1) * side * side, layer.inside]
        return [*sizes, PROJECTED]
