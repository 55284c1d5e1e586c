"""The systems of the paper's table 2, with few and narrow layers, through the whole export to every target."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clipstep.export.pipeline import export_network
from clipstep.network.videos import read_subclips
from clipstep.training.models import build, i3d, mobilenet3d_v1, r2plus1d, resnet3d, shufflenet3d_v1, slowfast_published
from clipstep.training.predict import video_logits
from clipstep.training.run import Run, RunInfo

pytestmark = pytest.mark.long
CLASSES = ("fight", "nofight", "other")
NARROW: dict[str, tuple[Any, str, Any]] = {
    "slowfast_published": (slowfast_published, "STAGE_UNITS", (1, 1, 1)),
    "shufflenet3d_0.5x": (shufflenet3d_v1, "STAGE_UNITS", (1, 1, 1)),
    "shufflenet3d_1.0x": (shufflenet3d_v1, "STAGE_UNITS", (1, 1, 1)),
    "mobilenet3d": (mobilenet3d_v1, "BLOCKS", ((16, 1, 2), (24, 1, 2))),
    "resnet3d_50": (resnet3d, "STAGES", ((4, 2, 2),)),
    "i3d": (i3d, "MIXED", ((8, 6, 8, 4, 4, 4), None)),
    "r2plus1d_18": (r2plus1d, "STAGES", ((16, 2),)),
}


@pytest.mark.parametrize("name", NARROW)
@torch.no_grad()
def test_each_system_goes_to_every_target_in_one_delegate_and_within_1e5(
    name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch norms have the statistics of real frames, and one class has by far the largest logit."""
    torch.manual_seed(0)
    monkeypatch.setattr(*NARROW[name])
    frames = 16 if name == "slowfast_published" else 4
    config = {"classes": len(CLASSES), "frames": frames, "size": 48}
    network, subclips = build(name, config), read_subclips(clip, frames, 48)[:3]
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm3d)):
        norm.momentum = None
    info = RunInfo(name, config, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    video_logits(network.train(), subclips, info)
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    last.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    manifest = export_network(Run(network.eval(), info, subclips).spec(name), tmp_path / "out.clipstep").manifest
    assert [artifact.target for artifact in manifest.artifacts] == ["onnx", "executorch", "coreml", "coreml"]
    for artifact in manifest.artifacts[:3]:
        assert artifact.parity.max_relative_error <= 1e-5
    placement = manifest.artifacts[1].placement
    assert len(placement.delegated) == 1 and not placement.not_delegated
