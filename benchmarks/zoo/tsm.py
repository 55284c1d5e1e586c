"""TSM on torchvision's MobileNetV2 and ResNet-50, offline on clips and online with states, with random weights.

Source: Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding" (2019). Before the first convolution of a residual block, an
eighth of the channels comes from the frame after and, offline, another eighth from the frame before. Online, there is no frame after: the eighth
that comes from the frame before is a state of each block.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

SHARE = 8
"""One of this number of channels is shifted in each direction."""
CLASSES, SIZE = 400, 224
Shift = Callable[[Tensor], Tensor]
Backbone = tuple[Sequence[nn.Module], nn.Module]
"""The blocks of a 2D network, in which those to be shifted are `Residual`, and its head."""


def shift_both_ways(x: Tensor) -> Tensor:
    """Return ``x`` ``(T, C, H, W)`` with an eighth of its channels from the frame after, and another from the frame before; zeros at the ends."""
    fold = x.shape[1] // SHARE
    nothing = torch.zeros_like(x[:1, :fold])
    after, before = torch.cat([x[1:, :fold], nothing]), torch.cat([nothing, x[:-1, fold : 2 * fold]])
    return torch.cat([after, before, x[:, 2 * fold :]], 1)


def shift_on(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` ``(T, C, H, W)`` with an eighth of its channels from the frame before, and the next state.

    For the first frame they are ``state`` ``(1, C / 8, H, W)``.
    """
    fold = x.shape[1] // SHARE
    shifted = torch.cat([state, x[:, :fold]])
    return torch.cat([shifted[:-1], x[:, fold:]], 1), shifted[-1:]


class Residual(nn.Module):
    """A residual block, whose branch gets shifted channels: ``activation(shortcut(x) + branch(shift(x)))``."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.shortcut, self.activation = branch, shortcut or nn.Identity(), activation or nn.Identity()

    def forward(self, x: Tensor, shift: Shift) -> Tensor:
        output: Tensor = self.activation(self.shortcut(x) + self.branch(shift(x)))
        return output


class _Tsm(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), head

    def logits(self, frames: Tensor, shift: Shift) -> Tensor:
        """Return the logits of each frame ``(T, classes)`` for a clip ``(1, 3, T, H, W)``."""
        x = frames[0].transpose(0, 1)
        for block in self.blocks:
            x = block(x, shift) if isinstance(block, Residual) else block(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class OfflineTsm(_Tsm):
    """``forward(frames)`` takes a clip ``(1, 3, T, H, W)`` and returns logits ``(1, classes)``, the mean of those of its frames."""

    def forward(self, frames: Tensor) -> Tensor:
        return self.logits(frames, shift_both_ways).mean(0, keepdim=True)


class OnlineTsm(_Tsm):
    """``forward(frames, *states)`` takes frames ``(1, 3, T, size, size)`` and a state for each shift.

    It returns the logits of the newest frame ``(1, classes)`` and the next states.
    """

    def __init__(self, blocks: Sequence[nn.Module], head: nn.Module, size: int = SIZE) -> None:
        super().__init__(blocks, head)
        self.size = size

    def initial_states(self) -> dict[str, Tensor]:
        """Return the states before the first frame: zeros."""
        shapes: list[torch.Size] = []

        def record(x: Tensor) -> Tensor:
            shapes.append(x.shape)
            return x

        with torch.no_grad():
            self.logits(next(self.parameters()).new_zeros(1, 3, 1, self.size, self.size), record)
        return {f"shift_{n}": torch.zeros(1, shape[1] // SHARE, *shape[2:]) for n, shape in enumerate(shapes, 1)}

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        before, after = iter(states), list[Tensor]()

        def shift(x: Tensor) -> Tensor:
            shifted, state = shift_on(x, next(before))
            after.append(state)
            return shifted

        return self.logits(frames, shift)[-1:], *after


def _mobilenet_v2() -> Backbone:
    """Every inverted residual with a shortcut is shifted, 10 in all."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None, num_classes=CLASSES)
    return [Residual(part.conv) if getattr(part, "use_res_connect", False) else part for part in network.features], network.classifier


def _resnet50() -> Backbone:
    """All 16 bottlenecks are shifted."""
    from torchvision.models import resnet50

    network = resnet50(weights=None, num_classes=CLASSES)
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    blocks = [
        Residual(nn.Sequential(b.conv1, b.bn1, b.relu, b.conv2, b.bn2, b.relu, b.conv3, b.bn3), b.downsample, b.relu) for s in stages for b in s
    ]
    return [network.conv1, network.bn1, network.relu, network.maxpool, *blocks], network.fc


def _network(kind: type[_Tsm], backbone: Callable[[], Backbone]) -> nn.Module:
    return kind(*backbone()).eval()


tsm_mobilenet_v2 = partial(_network, OfflineTsm, _mobilenet_v2)
tsm_resnet50 = partial(_network, OfflineTsm, _resnet50)
tsm_online_mobilenet_v2 = partial(_network, OnlineTsm, _mobilenet_v2)
tsm_online_resnet50 = partial(_network, OnlineTsm, _resnet50)
