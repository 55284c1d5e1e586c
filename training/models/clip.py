"""What the clip networks share: their config, and parts that more than one paper uses."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ClipConfig:
    """What a clip network needs to be rebuilt; ``channels`` is 3 for RGB frames, 2 for optical flow."""

    classes: int
    frames: int = 16
    size: int = 112
    channels: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or (value < 1 and value is not False):
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")


def conv_unit(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int, int] = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; the size stays but for the stride."""
    convolution = nn.Conv3d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU())


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A residual block's shortcut: nothing, or where the shape changes a 1x1x1 convolution and a batch norm."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
