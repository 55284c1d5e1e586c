"""The table of targets, as far as an export knows them: a new one is a file here and a line below.

What a runtime must know of a target is in `clipstep.runtime.targets`, in the same order. This table is read without PyTorch: each entry
imports the module that writes its files when something is written.
"""

from clipstep.export.targets.coreml import COREML
from clipstep.export.targets.executorch import EXECUTORCH
from clipstep.export.targets.onnx import ONNX
from clipstep.export.targets.target import Target

TARGETS: dict[str, Target] = {
    ONNX.name: ONNX,
    EXECUTORCH.name: EXECUTORCH,
    COREML.name: COREML,
}
