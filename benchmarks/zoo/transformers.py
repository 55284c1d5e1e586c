"""Video transformers of Hugging Face from small configurations, with random weights: 8 frames of 64x64."""

from typing import Any

from torch import nn
from transformers import TimesformerConfig, TimesformerForVideoClassification, VideoMAEConfig, VideoMAEForVideoClassification, VivitConfig
from transformers import VivitForVideoClassification as Vivit

FRAMES, SIZE, CLASSES = 8, 64, 400
SMALL = {
    "num_frames": FRAMES,
    "image_size": SIZE,
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "num_labels": CLASSES,
}


def _network(network: Any) -> nn.Module:
    module: nn.Module = network.eval()
    return module


def videomae() -> nn.Module:
    """VideoMAE, with tubelets of 2 frames of 16x16."""
    return _network(VideoMAEForVideoClassification(VideoMAEConfig(**SMALL, patch_size=16, tubelet_size=2)))


def timesformer() -> nn.Module:
    """TimeSformer, with divided attention over time and space."""
    return _network(TimesformerForVideoClassification(TimesformerConfig(**SMALL, patch_size=16)))


def vivit() -> nn.Module:
    """ViViT, model 1, with tubelets of 2 frames of 16x16."""
    return _network(Vivit(VivitConfig(**SMALL, tubelet_size=(2, 16, 16))))
