"""The architectures, one file each, and the table that names them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from clipstep.runtime.errors import ClipstepError
from clipstep.training.models.slowfast_causal_shufflenet import PRESETS, SlowFastCausalShuffleNet, SlowFastConfig

ARCHITECTURES = {"slowfast_causal_shufflenet": (SlowFastCausalShuffleNet, SlowFastConfig)}

__all__ = ["ARCHITECTURES", "PRESETS", "SlowFastCausalShuffleNet", "SlowFastConfig", "build"]


def build(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """The network of that name with random weights.

    Raises:
        ClipstepError: no architecture has that name, or its config refuses the values.
    """
    if architecture not in ARCHITECTURES:
        raise ClipstepError("unknown architecture", got=architecture, expected=f"one of {', '.join(ARCHITECTURES)}")
    network, config_type = ARCHITECTURES[architecture]
    try:
        return network(config_type(**config))
    except (TypeError, ValueError) as error:
        raise ClipstepError(f"{architecture}: {error}") from error
