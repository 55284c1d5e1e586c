"""Which processors compute in float16, by what Linux says of them."""

from pathlib import Path

import pytest

from clipstep.runtime.float16_processor import computes_float16

A76 = "processor\t: 0\nFeatures\t: fp asimd crc32 fphp asimdhp\nCPU part\t: 0xd0b\n\n"
A53 = "processor\t: 1\nFeatures\t: fp asimd crc32\nCPU part\t: 0xd03\n"
HASWELL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu fma f16c avx2\nbugs\t\t: spectre_v1\n"
IVY_BRIDGE = "processor\t: 0\nflags\t\t: fpu f16c avx\n"


@pytest.mark.parametrize(
    ("machine", "system", "text", "expected"),
    [
        ("arm64", "linux", A76 + A76, True),
        ("arm64", "linux", A76 + A53, False),  # A step may run on any core.
        ("arm64", "linux", HASWELL, False),
        ("x86_64", "linux", HASWELL, True),
        ("x86_64", "linux", IVY_BRIDGE, False),
        ("any", "linux", A76, False),
        ("arm64", "linux", "", False),
        ("arm64", "linux", None, False),
        ("arm64", "darwin", None, True),
        ("x86_64", "darwin", None, False),
        ("x86_64", "win32", HASWELL, False),
    ],
)
def test_a_processor(machine: str, system: str, text: str | None, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert computes_float16(machine, system, path) is expected
