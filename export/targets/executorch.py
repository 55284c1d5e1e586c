"""The target `executorch`: ExecuTorch, with all arithmetic in XNNPACK."""

import math
from dataclasses import replace

from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.targets.target import PALETTES_REFUSED, W8A8_REFUSED, Target
from clipstep.runtime.target_executorch import EXECUTORCH as INFO

PROFILE = EngineProfile(
    batch_limit=math.inf,
    gemm=True,
    gemm_per_tap=False,
    free_permutations=True,
    channel_major=False,
    padded_average_pools=False,
    winograd=True,
    slice_early=True,
    recurrent_layers=False,
)
"""The engine profile for XNNPACK. The writer lets a value lie in memory in any order of its axes, so that permutations cost nothing."""
VARIANTS = {
    "gemm": PROFILE,
    "gemm-per-tap": replace(PROFILE, gemm_per_tap=True),
    "direct": replace(PROFILE, gemm=False),
    "per-frame": replace(PROFILE, batch_limit=0),
    "no-winograd": replace(PROFILE, winograd=False),
    "linear-layers": replace(PROFILE, winograd=False, linear_layers=True),
}
"""The engine profiles that `--tune` measures. The home network takes 108.5 M ARM64 instructions with `gemm`, 114.3 M with `gemm-per-tap`,
146.7 M with `direct`, 108.2 M with `per-frame` and 138.8 M with `linear-layers`, which is the default in int8 and takes 69.3 M there."""


EXECUTORCH = Target(
    info=INFO,
    writer="clipstep.export.targets.executorch_writer",
    precisions=("float32", "float16", "dynamic8", "int8"),
    refused_precisions={**PALETTES_REFUSED, **W8A8_REFUSED},
    variants=VARIANTS,
    platforms={"arm64": "gemm", "x86_64": "gemm-per-tap"},
    precision_variants={"int8": "linear-layers"},
    tools=("torch", "executorch"),
)
