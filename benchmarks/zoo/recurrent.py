"""2D networks of torchvision and timm with a recurrent layer or a Transformer encoder over their frames, and a ConvLSTM, with random weights."""

import torch
from torch import Tensor, nn

CLASSES = 400
HIDDEN = 256
FRAMES = 16


class OverFrames(nn.Module):
    """Features of each frame by a 2D network, which a recurrent layer then takes as a sequence; the logits are those of its last output."""

    def __init__(self, features: nn.Module, recurrent: nn.Module) -> None:
        super().__init__()
        self.features, self.recurrent, self.head = features, recurrent, nn.Linear(HIDDEN, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        batch, _, count, _, _ = frames.shape
        features = self.features(frames.transpose(1, 2).flatten(0, 1)).reshape(batch, count, -1)
        logits: Tensor = self.head(self.recurrent(features)[0][:, -1])
        return logits


class Encoder(nn.Module):
    """A Transformer encoder with learned positions over 16 frames; like a recurrent layer it returns its outputs and something more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project, self.positions = nn.Linear(channels, HIDDEN), nn.Parameter(0.02 * torch.randn(1, FRAMES, HIDDEN))
        layers = (nn.TransformerEncoderLayer(HIDDEN, 4, 4 * HIDDEN, batch_first=True, norm_first=True, activation="gelu") for _ in range(2))
        self.layers = nn.Sequential(*layers, nn.LayerNorm(HIDDEN))

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        return self.layers(self.project(features) + self.positions), None


class ConvLstm(nn.Module):
    """Two strided convolutions and two layers of convolutional LSTM (Shi et al., 2015) over the frames, which begin with zeros."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(_strided(3, channels // 2), _strided(channels // 2, channels), _strided(channels, channels))
        self.gates = nn.ModuleList(nn.Conv2d(2 * channels, 4 * channels, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        batch, _, _, height, width = frames.shape
        zeros = frames.new_zeros(batch, self.head.in_features, -(-height // 8), -(-width // 8))
        states = [(zeros, zeros) for _ in self.gates]
        for t in range(frames.shape[2]):
            x = self.stem(frames[:, :, t])
            for n, gates in enumerate(self.gates):
                states[n] = x, _ = _cell(gates, x, *states[n])
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _strided(before: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


def _cell(gates: nn.Module, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    forget, into, out, new = gates(torch.cat([x, hidden], 1)).chunk(4, 1)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def cnn_lstm() -> nn.Module:
    """MobileNetV2 of torchvision and an LSTM."""
    from torchvision.models import mobilenet_v2

    features = nn.Sequential(mobilenet_v2(weights=None).features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return OverFrames(features, nn.LSTM(1280, HIDDEN, batch_first=True)).eval()


def cnn_gru() -> nn.Module:
    """MobileNetV3 of timm and two layers of GRU."""
    import timm

    features = timm.create_model("mobilenetv3_small_100", pretrained=False, num_classes=0)
    return OverFrames(features, nn.GRU(features.head_hidden_size, HIDDEN, 2, batch_first=True)).eval()


def cnn_transformer() -> nn.Module:
    """ResNet-18 of torchvision and two layers of a Transformer encoder."""
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    network.fc = nn.Identity()
    return OverFrames(network, Encoder(512)).eval()


def conv_lstm() -> nn.Module:
    """Two layers of convolutional LSTM."""
    return ConvLstm().eval()
