"""The architectures, one file each, and the table of their names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from clipstep.runtime.errors import ClipstepError
from clipstep.training.models.clip import ClipConfig
from clipstep.training.models.i3d import I3D
from clipstep.training.models.mobilenet3d_v1 import MobileNet3D
from clipstep.training.models.r2plus1d import R2Plus1D
from clipstep.training.models.resnet3d import ResNet50
from clipstep.training.models.shufflenet3d_v1 import ShuffleNet3D
from clipstep.training.models.slowfast_causal_shufflenet import PRESETS, SlowFastCausalShuffleNet, SlowFastConfig
from clipstep.training.models.slowfast_fully_causal import FullyCausalSlowFast
from clipstep.training.models.slowfast_published import PublishedConfig, PublishedSlowFast


@dataclass(frozen=True)
class Architecture:
    """How a network is built from its config: ``network(config(classes=..., frames=..., size=..., ...))``.

    ``explained`` names the layers that Grad-CAM explains: the last ones with some spatial resolution.
    """

    network: Callable[[Any], nn.Module]
    explained: tuple[str, ...]
    config: Callable[..., Any] = ClipConfig


def _slowfast(config: SlowFastConfig) -> nn.Module:
    return FullyCausalSlowFast(config) if config.causal else SlowFastCausalShuffleNet(config)


HOME = "slowfast_causal_shufflenet"
ARCHITECTURES = {
    HOME: Architecture(_slowfast, ("slow.stages.11", "fast.stages.11"), SlowFastConfig),
    "slowfast_published": Architecture(PublishedSlowFast, ("slow_stages.11", "fast_stages.11"), PublishedConfig),
    "shufflenet3d_0.5x": Architecture(partial(ShuffleNet3D, width=0.5), ("stages.11",)),
    "shufflenet3d_1.0x": Architecture(partial(ShuffleNet3D, width=1.0), ("stages.11",)),
    "mobilenet3d": Architecture(MobileNet3D, ("features.10",)),
    "resnet3d_50": Architecture(ResNet50, ("blocks.12",)),
    "i3d": Architecture(I3D, ("mixed.7",)),
    "r2plus1d_18": Architecture(R2Plus1D, ("blocks.7",)),
}
"""The networks that `clipstep train --architecture` and `build` take, by name; `clipstep models` says how large each is."""

__all__ = ["ARCHITECTURES", "HOME", "PRESETS", "Architecture", "SlowFastCausalShuffleNet", "SlowFastConfig", "build"]


def build(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """Build the network of that name with random weights.

    Example:
        ```python
        network = build("i3d", {"classes": 400, "frames": 16, "size": 112}).eval()
        ```

    Raises:
        ClipstepError: No architecture has that name, or its config does not accept the values.
    """
    if architecture not in ARCHITECTURES:
        raise ClipstepError("unknown architecture", got=architecture, expected=f"one of {', '.join(ARCHITECTURES)}")
    entry = ARCHITECTURES[architecture]
    try:
        return entry.network(entry.config(**config))
    except (TypeError, ValueError) as error:
        raise ClipstepError(f"{architecture}: {error}") from error
