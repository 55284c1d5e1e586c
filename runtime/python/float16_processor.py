"""Whether this computer's processor computes in float16, which the manifest says an artifact needs (`requires.float16_processor`)."""

import sys
from pathlib import Path

FLAGS = {"arm64": {"asimdhp"}, "x86_64": {"avx2", "f16c"}}
"""By processor, what Linux lists among the features of one for which XNNPACK has float16 kernels: half-precision arithmetic on vectors on ARM64;
on x86_64 conversions, between which the kernels compute in float32."""


def computes_float16(machine: str, system: str = sys.platform, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether every core of the processor computes in float16. On systems other than Linux and macOS it is not known, and taken not to.

    Args:
        machine: the processor, `arm64` or `x86_64`.
        system: as `sys.platform` has it.
        cpuinfo: the file in which Linux describes the processor.
    """
    if system == "darwin":
        return machine == "arm64"
    if system != "linux" or machine not in FLAGS or not cpuinfo.is_file():
        return False
    lines = (line.partition(":") for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines())
    features = [set(value.split()) for name, _, value in lines if name.strip() in ("Features", "flags")]
    return bool(features) and all(FLAGS[machine] <= each for each in features)
