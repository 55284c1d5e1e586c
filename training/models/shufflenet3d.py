"""ShuffleNet-V1 units in 3D: group convolutions, a channel shuffle, a depthwise convolution.

Source: Zhang et al., "ShuffleNet" (2018), figure 2, with every 2D kernel replaced by its 3D counterpart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.network.packed_state import PackedState


class ShuffleUnit(nn.Module):
    """One ShuffleNet-V1 unit: ``(N, C_in, T, H, W)`` to ``(N, C_out, T', H', W')``.

    With stride 2 all three axes are halved (rounded up) and the average-pooled input is concatenated to the branch; with stride 1 the
    input is added to it. ``paired_shortcut`` pools frames in pairs, which needs an even T. A ``causal`` unit does not halve time, and its
    temporal kernels reach back to frames that it remembers in a `PackedState`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, groups: int, first_groups: int, paired_shortcut: bool = False, causal: bool = False
    ) -> None:
        super().__init__()
        middle = out_channels // 4
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.stride = stride
        self.groups = groups
        self.strides = (1 if causal else stride, stride, stride)
        self.pooled_frames = 1 if causal else 2 if paired_shortcut else 3
        self.conv1 = nn.Conv3d(in_channels, middle, 1, groups=first_groups, bias=False)
        self.norm1 = nn.BatchNorm3d(middle)
        self.depthwise = nn.Conv3d(middle, middle, 3, stride=self.strides, padding=(0 if causal else 1, 1, 1), groups=middle, bias=False)
        self.norm2 = nn.BatchNorm3d(middle)
        self.conv2 = nn.Conv3d(middle, branch, 1, groups=groups, bias=False)
        self.norm3 = nn.BatchNorm3d(branch)

    def forward(self, x: Tensor, past: PackedState | None = None) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.channel_shuffle(y, self.groups)
        y = self.norm2(self.depthwise(y if past is None else past.extend(y, 2)))
        y = self.norm3(self.conv2(y))
        if self.stride == 2:
            # Pooling three frames, with padding, works for any T. The padding is a separate operation because avg_pool3d
            # refuses an input that is smaller than its kernel, even if its own padding would make up for it.
            padding = (self.pooled_frames - 1) // 2
            padded = F.pad(x, (1, 1, 1, 1, padding, padding))
            shortcut = F.avg_pool3d(padded, (self.pooled_frames, 3, 3), stride=self.strides)
            return F.relu(torch.cat([shortcut, y], dim=1))
        return F.relu(x + y)


def shuffle_stages(
    in_channels: int, channels: Sequence[int], units: Sequence[int], groups: int, *, paired_shortcut: bool = False, causal: bool = False
) -> nn.Sequential:
    """Return the stages of a 3D ShuffleNet: stage ``i`` has ``units[i]`` units of ``channels[i]`` channels, the first of them with stride 2.

    The first convolution of the very first unit is not grouped, because it has few input channels; its channel shuffle still has groups.
    """
    layers: list[nn.Module] = []
    for out_channels, count in zip(channels, units, strict=True):
        for index in range(count):
            layers.append(
                ShuffleUnit(
                    in_channels,
                    out_channels,
                    stride=2 if index == 0 else 1,
                    groups=groups,
                    first_groups=groups if layers else 1,
                    paired_shortcut=paired_shortcut,
                    causal=causal,
                )
            )
            in_channels = out_channels
    return nn.Sequential(*layers)
