"""The values that the commands' options may take, derived from the table of targets.

Importing this module does not import PyTorch, so that `--help` is fast.
"""

from clipstep.export.targets import TARGETS as _TARGETS
from clipstep.export.targets.target import ANY

TARGETS = tuple(_TARGETS)
FORMS = ("auto", *dict.fromkeys(form for target in _TARGETS.values() for form in target.forms))
PLATFORMS = (ANY, *dict.fromkeys(platform for target in _TARGETS.values() for platform in target.platforms))
INPUT_DTYPES = ("auto", *dict.fromkeys(dtype for target in _TARGETS.values() for dtype in target.input_dtypes))
OUTPUT_KINDS = ("logits", "probabilities", "multilabel")
