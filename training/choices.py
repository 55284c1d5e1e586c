"""The values that options may have. The tables that they name need PyTorch, which help texts must not load; a test compares both."""

HOME = "slowfast_causal_shufflenet"
"""The network that is trained unless another is asked for."""
ARCHITECTURES = (HOME, "slowfast_published", "shufflenet3d_0.5x", "shufflenet3d_1.0x", "mobilenet3d", "resnet3d_50", "i3d", "r2plus1d_18")
PRESETS = ("a2b1", "a4b2", "causal")
LOSSES = ("every", "last")
INPUTS: dict[str, dict[str, int]] = {"rgb": {}, "flow": {"channels": 2}}
"""What a network takes as input, and what its config then holds."""
