"""MoViNet A0, A1 and A2 with random weights: the base networks, which see a clip at once, and the streaming ones.

Source: Kondratyuk et al., "MoViNets: Mobile Video Networks for Efficient Video Recognition" (2021), section 3 and the tables of the appendix. A
base network has 3D depthwise convolutions, swish, and squeeze-and-excitations over the whole clip. A streaming one has causal (2+1)D convolutions,
hard swish, and squeeze-and-excitations over the frames so far. Its states are packed into one: the buffers of its temporal convolutions, and the
running means of its squeeze-and-excitations and its head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from clipstep.network.packed_state import PackedState

CLASSES = 600
HEAD = 2048
"""The features of the head."""


@dataclass(frozen=True)
class Layer:
    """A bottleneck: its output channels, inner channels, kernel size in time and in space, and spatial stride."""

    channels: int
    inside: int
    time: int
    plane: int
    stride: int = 1


def _block(channels: int, inside: Sequence[int], kernels: str, stride: int = 2) -> tuple[Layer, ...]:
    """Return the layers of a block. Kernels are given as ``53 33``: 5 in time and 3 in space, then 3 in both; the first layer has the stride."""
    sizes = [(int(kernel[0]), int(kernel[1])) for kernel in kernels.split()]
    return tuple(Layer(channels, i, *size, 1 if n else stride) for n, (i, size) in enumerate(zip(inside, sizes, strict=True)))


@dataclass(frozen=True)
class Architecture:
    """A MoViNet: the size of its frames in pixels, its channels after the stem and before the head, and its layers between these."""

    size: int
    stem: int
    projected: int
    layers: tuple[Layer, ...]


A0 = Architecture(
    172,
    8,
    480,
    (
        *_block(8, (24,), "15"),
        *_block(32, (80, 80, 80), "33 33 33"),
        *_block(56, (184, 112, 184), "53 33 33"),
        *_block(56, (184, 184, 184, 184), "53 33 33 33", stride=1),
        *_block(104, (384, 280, 280, 344), "53 15 15 15"),
    ),
)
A1 = Architecture(
    172,
    16,
    600,
    (
        *_block(16, (40, 40), "15 33"),
        *_block(40, (96, 120, 96, 96), "33 33 33 33"),
        *_block(64, (216, 128, 216, 168, 216), "53 33 33 33 33"),
        *_block(64, (216, 216, 216, 128, 128, 216), "53 33 33 33 15 33", stride=1),
        *_block(136, (456, 360, 360, 360, 456, 456, 544), "53 15 15 15 15 33 13"),
    ),
)
A2 = Architecture(
    224,
    16,
    640,
    (
        *_block(16, (40, 40, 64), "15 33 33"),
        *_block(40, (96, 120, 96, 96, 120), "33 33 33 33 33"),
        *_block(72, (240, 160, 240, 192, 240), "53 33 33 33 33"),
        *_block(72, (240, 240, 240, 240, 144, 240), "53 33 33 33 15 33", stride=1),
        *_block(144, (480, 384, 384, 480, 480, 480, 576), "53 15 15 15 15 33 13"),
    ),
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


def _depthwise(channels: int, kernel: tuple[int, int, int], stride: int, padding: tuple[int, int, int], activation: type[nn.Module]) -> nn.Sequential:
    conv = nn.Conv3d(channels, channels, kernel, (1, stride, stride), padding, groups=channels, bias=False)
    return nn.Sequential(conv, _norm(channels), activation())


class Bottleneck(nn.Module):
    """A bottleneck: expansion, a depthwise convolution, squeeze-and-excitation, projection, and a shortcut.

    With ``streaming``, the convolution is (2+1)D and causal in time.
    """

    def __init__(self, before: int, layer: Layer, *, streaming: bool = True) -> None:
        super().__init__()
        inside, k = layer.inside, layer.plane
        self.time, self.streaming = layer.time, streaming
        activation, gate = (nn.Hardswish, nn.Hardsigmoid) if streaming else (nn.SiLU, nn.Sigmoid)
        self.expand = nn.Sequential(nn.Conv3d(before, inside, 1, bias=False), _norm(inside), activation())
        if streaming:
            self.in_plane = _depthwise(inside, (1, k, k), layer.stride, (0, k // 2, k // 2), activation)
            self.over_time = _depthwise(inside, (layer.time, 1, 1), 1, (0, 0, 0), activation) if layer.time > 1 else nn.Identity()
        else:
            self.in_clip = _depthwise(inside, (layer.time, k, k), layer.stride, (layer.time // 2, k // 2, k // 2), activation)
        squeezed = max(8, (inside // 4 + 4) // 8 * 8)
        self.squeeze = nn.Sequential(nn.Conv3d(inside * (1 + streaming), squeezed, 1), activation(), nn.Conv3d(squeezed, inside, 1), gate())
        self.project = nn.Sequential(nn.Conv3d(inside, layer.channels, 1, bias=False), _norm(layer.channels))
        stride = (1, layer.stride, layer.stride)
        pool = nn.AvgPool3d((1, 3, 3), stride, (0, 1, 1), count_include_pad=False) if layer.stride > 1 else nn.Identity()
        same = layer.stride == 1 and before == layer.channels
        self.shortcut = nn.Identity() if same else nn.Sequential(pool, nn.Conv3d(before, layer.channels, 1, bias=False), _norm(layer.channels))

    def forward(self, x: Tensor, past: MovinetState | None = None) -> Tensor:
        expanded = self.expand(x)
        y = self._in_clip(expanded) if past is None else self._so_far(expanded, past)
        output: Tensor = self.shortcut(x) + self.project(y)
        return output

    def _in_clip(self, x: Tensor) -> Tensor:
        y: Tensor = self.in_clip(x)
        y = y * self.squeeze(y.mean((2, 3, 4), keepdim=True))
        return y

    def _so_far(self, x: Tensor, past: MovinetState) -> Tensor:
        y: Tensor = self.in_plane(x)
        if self.time > 1:
            _, channels, _, height, width = y.shape
            y = torch.cat([past.read((channels, self.time - 1, height, width)), y], 2)
            past.write(y[:, :, -(self.time - 1) :])
            y = self.over_time(y)
        each = y.mean((3, 4), keepdim=True)
        y = y * self.squeeze(torch.cat([mean_so_far(each, past), each], 1))
        return y


class _MoViNet(nn.Module):
    """The layers of a network, whose random weights come from ``seed``."""

    def __init__(self, architecture: Architecture, seed: int, *, streaming: bool) -> None:
        super().__init__()
        self.architecture = architecture
        activation = nn.Hardswish if streaming else nn.SiLU
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            stem, projected = architecture.stem, architecture.projected
            self.stem = nn.Sequential(nn.Conv3d(3, stem, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False), _norm(stem), activation())
            channels = [stem, *(layer.channels for layer in architecture.layers)]
            pairs = zip(channels, architecture.layers, strict=False)
            self.layers = nn.ModuleList(Bottleneck(before, layer, streaming=streaming) for before, layer in pairs)
            self.project = nn.Sequential(nn.Conv3d(channels[-1], projected, 1, bias=False), _norm(projected), activation())
            self.head = nn.Sequential(nn.Linear(projected, HEAD), activation(), nn.Linear(HEAD, CLASSES))


class MoViNetBase(_MoViNet):
    """A base network: ``forward(frames)`` takes clips ``(N, 3, T, H, W)`` and returns logits ``(N, 600)``."""

    def __init__(self, architecture: Architecture = A0, seed: int = 0) -> None:
        super().__init__(architecture, seed, streaming=False)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.stem(frames)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.project(x).mean((2, 3, 4)))
        return logits


class MoViNetStream(_MoViNet):
    """A streaming network: ``forward(frames, past)`` takes frames ``(1, 3, T, H, W)`` and returns logits ``(1, 600)`` and the next ``past``."""

    def __init__(self, architecture: Architecture = A0, seed: int = 0) -> None:
        super().__init__(architecture, seed, streaming=True)

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
        side, sizes = -(-self.architecture.size // 2), []
        for layer in self.architecture.layers:
            side = -(-side // layer.stride)
            sizes += [layer.inside * (layer.time - 1) * side * side, layer.inside]
        return [*sizes, self.architecture.projected]


movinet_a0_base, movinet_a1_base, movinet_a2_base = (partial(MoViNetBase, architecture) for architecture in (A0, A1, A2))
movinet_a0_stream, movinet_a1_stream, movinet_a2_stream = (partial(MoViNetStream, architecture) for architecture in (A0, A1, A2))
