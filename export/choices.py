"""The values that the commands' options may take, derived from the table of targets.

Importing this module does not import PyTorch, so that `--help` is fast.
"""

from clipstep.export.targets import TARGETS as _TARGETS
from clipstep.export.targets.target import ANY
from clipstep.runtime.precision import PRECISIONS as _PRECISIONS

TARGETS = tuple(_TARGETS)
FORMS = ("auto", *dict.fromkeys(form for target in _TARGETS.values() for form in target.forms))
PLATFORMS = (ANY, *dict.fromkeys(platform for target in _TARGETS.values() for platform in target.platforms))
INPUT_DTYPES = ("auto", *dict.fromkeys(dtype for target in _TARGETS.values() for dtype in target.input_dtypes))
PRECISIONS = tuple(one for one in _PRECISIONS if any(one in target.precisions for target in _TARGETS.values()))
OUTPUT_KINDS = ("logits", "probabilities", "multilabel")
ADAPTERS = {
    "pathways": ("pathways:ALPHA", "a list of every ALPHA-th frame and of all frames, as SlowFast does"),
    "time-first": ("time-first", "clips (N, T, 3, H, W)"),
    "frames-as-channels": ("frames-as-channels", "images (N, T * 3, H, W)"),
    "frames-as-batch": ("frames-as-batch[:mean]", "images (N * T, 3, H, W), whose logits are averaged with :mean"),
    "grey": ("grey", "clips of one channel"),
    "dictionary": ("dictionary:KEY", "a dictionary with the clip under KEY"),
    "buffers": ("buffers", "clips, and changes registered buffers, which become states"),
}
"""What `--adapter` takes by name: its form, and what the network in the adapter takes."""
