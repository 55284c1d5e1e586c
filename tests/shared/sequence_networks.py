"""Small networks of a 2D or (2+1)D part on the frames and a part on the sequence of their features."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CHANNELS, FEATURES, HIDDEN, CLASSES = 3, 8, 6, 3
SIZE, CLIP = 6, 8
"""The size of the frames, and the number of frames in a clip."""


class Images(nn.Module):
    """A 2D network on each frame: `(1, C, T, H, W)` to `(1, T, FEATURES)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(CHANNELS, 4, 3, 2, 1), nn.Linear(4 * 3 * 3, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x[0].transpose(0, 1)).relu().flatten(1))[None]


class Volume(nn.Module):
    """A (2+1)D network that may look ahead: `(1, C, T, H, W)` to `(1, T', FEATURES)`."""

    def __init__(self, kernel: int = 3, padding: int = 1) -> None:
        super().__init__()
        self.space, self.time = nn.Conv3d(CHANNELS, 4, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.Conv3d(4, FEATURES, (kernel, 1, 1), 1, (padding, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.space(x).relu()).mean((3, 4)).transpose(1, 2)


class Net(nn.Module):
    """Features of each frame, what a function makes of them with modules of its own, and a linear layer."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module, features: nn.Module | None = None) -> None:
        super().__init__()
        self.features = features or Images()
        self.function, self.parts = function, nn.ModuleList(parts)
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.function(self.features(frames), *self.parts).flatten(1))


def made(network: Net) -> Net:
    """Run a network once, which makes its head, draw its weights, and put it into evaluation mode."""
    with torch.no_grad():
        network(clip_of_zeros())
        generator = torch.Generator().manual_seed(0)
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4)
    return network.eval()


def clip_of_zeros() -> Tensor:
    return torch.zeros(1, CHANNELS, CLIP, SIZE, SIZE)


def rnn(kind: type[nn.RNNBase], **settings: object) -> nn.RNNBase:
    return kind(FEATURES, HIDDEN, batch_first=True, **settings)


class LearnedStart(nn.Module):
    """A recurrent layer from a learned hidden state."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.start = layer, nn.Parameter(torch.zeros(1, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, (self.start, 2 * self.start) if isinstance(self.layer, nn.LSTM) else self.start)[0]


class Attention(nn.Module):
    """Attention over time, by a function of the number of frames that gives the mask."""

    def __init__(self, mask: Callable[[int], Tensor] | None, **settings: object) -> None:
        super().__init__()
        self.mask, self.layer = mask, nn.MultiheadAttention(FEATURES, 2, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, attn_mask=None if self.mask is None else self.mask(x.shape[1]), need_weights=False)[0]


def band(window: int) -> Callable[[int], Tensor]:
    """The mask by which a query sees the newest `window` frames; True stands for what it does not see, as in nn.MultiheadAttention."""
    return lambda count: ~torch.ones(count, count).tril().triu(1 - window).bool()


def causal(count: int) -> Tensor:
    """The mask by which a query sees all earlier frames."""
    return nn.Transformer.generate_square_subsequent_mask(count)


def transformer_layer(**settings: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(FEATURES, 2, 16, batch_first=True, **settings)


def attention_by_hand(f: Tensor, projection: nn.Module, mask: Tensor, fill: float = -torch.inf) -> Tensor:
    """Two heads of attention, written as products and a softmax; `mask` is True for what a query does not see."""
    q, k, v = projection(f).reshape(1, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / 2).masked_fill(mask, fill).softmax(-1)
    return (nn.functional.dropout(weights, 0.5, training=False) @ v).transpose(1, 2).flatten(2)
