"""The networks of the zoo exported to all targets, each in a process of its own: ``make test-zoo``, which installs what they need."""

from pathlib import Path

import pytest

from clipstep.benchmarks.zoo.entries import ENTRIES
from clipstep.benchmarks.zoo.measure import export_apart

pytestmark = pytest.mark.zoo
VIDEO = Path(__file__).parents[2] / "training/demo/fight/videos/Fight/v_Fight_g13_c01.mp4"
FAILING: dict[str, dict[str, str]] = {
    "tsm_online_mobilenet_v2": {"coreml": "step-float16.mlpackage: shift_9 is off"},
}
"""What fails, with the reasons: docs/zoo.md."""
PUBLISHED = {
    "r3d_18": 33_371_472,
    "mc3_18": 11_695_440,
    "r2plus1d_18": 31_505_325,
    "s3d": 8_320_048,
    "mvit_v1_b": 36_610_672,
    "mvit_v2_s": 34_537_744,
    "swin3d_t": 28_158_070,
}
"""The parameters that torchvision's documentation gives."""


@pytest.mark.parametrize("name", ENTRIES)
def test_a_network_is_exported_to_all_targets_or_fails_for_the_known_reason(name: str, tmp_path: Path) -> None:
    exported = export_apart(ENTRIES[name], VIDEO, tmp_path)
    known = FAILING.get(name, {})
    assert exported.failed.keys() == known.keys(), exported.failed
    assert all(reason in exported.failed[target] for target, reason in known.items()), exported.failed
    assert name not in PUBLISHED or exported.parameters == PUBLISHED[name]
