"""The target `coreml`: Core ML, as an ML Program in an `.mlpackage`."""

import math

from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.targets.target import DYNAMIC_REFUSED, Evaluator, FormatVersion, Target
from clipstep.runtime.target_coreml import COREML as INFO

PROFILE = EngineProfile(
    batch_limit=math.inf,
    gemm=False,
    gemm_per_tap=False,
    free_permutations=False,
    channel_major=False,
    padded_average_pools=True,
    winograd=False,
    slice_early=False,
    recurrent_layers=False,
)
"""The engine profile for Core ML: few large operations. None of it was measured, because Core ML does not run on the computers where this was
written."""
VARIANTS = {"batched": PROFILE}
DEFAULT_IOS = 17
COMPRESSED = ("int8", "palette8", "palette6", "palette4")
"""The precisions of compressed weights; what is computed is in float16."""
FIRST_IOS = 16
"""The first iOS whose Core ML takes them."""
W8A8_IOS = 17
"""The first iOS whose Core ML has operations that round values to integers."""
MACOS = {15: 12, 16: 13, 17: 14, 18: 15}
"""For each iOS version, the macOS version that runs the same models."""


COREML = Target(
    info=INFO,
    writer="clipstep.export.targets.coreml_writer",
    precisions=("float32", "float16", "w8a8", *COMPRESSED),
    default_precisions=("float32", "float16"),
    refused_precisions=DYNAMIC_REFUSED,
    weight_precisions=COMPRESSED,
    least_format_versions={**dict.fromkeys(COMPRESSED, FIRST_IOS), "w8a8": W8A8_IOS},
    input_dtypes=("float32",),
    variants=VARIANTS,
    platforms={},
    tools=("torch", "coremltools"),
    format_version=FormatVersion(option="ios", numbers=tuple(MACOS), default=DEFAULT_IOS, meaning="The lowest iOS of the Core ML models"),
    evaluator=Evaluator(
        load="clipstep.export.mlprogram:load_mlprogram",
        name="the evaluator of ML Programs",
        display_name="own evaluator",
        note="Core ML itself runs on Apple devices only; here its saved packages are evaluated operation by operation",
    ),
)
