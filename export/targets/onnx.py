"""The target `onnx`: ONNX for onnxruntime."""

from dataclasses import replace

from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.targets.target import DYNAMIC_REFUSED, PALETTES_REFUSED, W8A8_REFUSED, FormatVersion, Target
from clipstep.runtime.target_onnx import ONNX as INFO

PROFILE = EngineProfile(
    batch_limit=2**19,
    gemm=True,
    gemm_per_tap=False,
    free_permutations=False,
    channel_major=True,
    padded_average_pools=True,
    winograd=True,
    slice_early=True,
    recurrent_layers=True,
)
"""The engine profile for onnxruntime's CPU provider."""
VARIANTS = {
    "channel-major": PROFILE,
    "batched": replace(PROFILE, channel_major=False, batch_limit=2**17),
    "per-frame": replace(PROFILE, channel_major=False, batch_limit=0),
    "no-winograd": replace(PROFILE, winograd=False),
}
"""The engine profiles that `--tune` measures. The home network takes 137.9 M ARM64 instructions with `channel-major`, 160.8 M with `batched`,
159.5 M with `per-frame`, and 271.4 M in the form `3d`, which is not lowered. In int8 `no-winograd` is the default, whose
convolutions add up more products each."""
OPSETS = range(13, 21)
"""The ONNX operator sets that a file can be written in."""


ONNX = Target(
    info=INFO,
    writer="clipstep.export.targets.onnx_writer",
    precisions=("float32", "int8"),
    precision_variants={"int8": "no-winograd"},
    refused_precisions={
        "float16": "onnxruntime has few float16 kernels for ARM64 and converts around the others: the home network took 258 M instructions in "
        "float16, and 138 M in float32",
        **PALETTES_REFUSED,
        **DYNAMIC_REFUSED,
        **W8A8_REFUSED,
    },
    forms=("lowered", "3d"),
    variants=VARIANTS,
    platforms={"arm64": "channel-major", "x86_64": "channel-major"},
    weight_limit=2**31 - 2**20,  # A file is one protobuf message, which may have 2 GiB; the weights are part of it.
    tools=("torch", "onnx", "onnxscript", "onnxruntime"),
    format_version=FormatVersion(
        option="opset", numbers=OPSETS, default=OPSETS[-1], meaning="ONNX's operator set", advice="a lower one runs in older runtimes"
    ),
)
