"""The values that options of the command line accept.

They are the names in tables of other modules. Those modules import PyTorch, which help must not load, so the names are repeated here; a test compares
both.
"""

HOME = "slowfast_causal_shufflenet"
"""The network that is trained unless another is asked for."""
ARCHITECTURES = (HOME, "slowfast_published", "shufflenet3d_0.5x", "shufflenet3d_1.0x", "mobilenet3d", "resnet3d_50", "i3d", "r2plus1d_18")
PRESETS = ("a2b1", "a4b2", "causal")
LOSSES = ("every", "last")
AUTO = "auto"
"""The layout of a data set that is recognised by its files."""
LAYOUTS = ("ucf101", "hmdb51", "kinetics", "csv", "something", "folders")
INPUTS: dict[str, dict[str, int]] = {"rgb": {}, "flow": {"channels": 2}}
"""The kinds of input that a network can take, each with what it adds to the network's config."""
