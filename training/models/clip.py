"""The config that all networks share, and layers that several of them use."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ClipConfig:
    """The config of a network: the number of classes, T, the size of frames in pixels, and 3 channels for RGB or 2 for optical flow."""

    classes: int
    frames: int = 16
    size: int = 112
    channels: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or (value < 1 and value is not False):
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")


def conv_unit(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int, int] = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution without bias, padded so that only the stride changes the size, a batch norm and a ReLU."""
    convolution = nn.Conv3d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU())


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return the shortcut of a residual block: the identity, or a 1x1x1 convolution and a batch norm where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
