"""What an artifact is written in, and what it needs: as the file itself says, as the manifest says, and chosen lower."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from coremltools.models.utils import load_spec
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.targets.coreml import COREML
from clipstep.export.targets.onnx import OPSETS, PROFILE
from clipstep.export.targets.onnx_model import onnx_model
from clipstep.runtime import Bundle, ClipstepError, StepModel, check_golden
from clipstep.runtime.bundle.manifest import Requires
from clipstep.runtime.golden import GoldenSteps
from clipstep.training.run import Run


class Varied(torch.nn.Module):
    """Operations whose ONNX differs by operator set."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pooled = F.max_pool2d(F.pad(x, (1, 1, 0, 1)), 2).mean((2, 3))
        larger = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        return F.gelu(x), F.gelu(x, approximate="tanh"), F.hardswish(x), x.sum(1, keepdim=True), x.mean((0, 2)), pooled, larger, x.clamp(-0.5, 0.5)


@pytest.mark.parametrize("opset", OPSETS)
def test_each_operator_set_computes_what_pytorch_does(opset: int) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * 3
    names = [f"out_{i}" for i in range(8)]
    model = onnx_model(lower(Varied(), (x,), PROFILE), ["x"], names, opset)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", opset)]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for got, expected in zip(session.run(None, {"x": x.numpy()}), Varied()(x), strict=True):
        np.testing.assert_allclose(got, expected.numpy(), atol=2e-6)


def chosen(option: str, number: int | None) -> dict[str, int]:
    return {} if number is None else {option: number}


@pytest.mark.parametrize(("opset", "expected"), [(None, (20, 9, ">=1.17")), (13, (13, 7, ">=1.15")), (19, (19, 9, ">=1.16"))])
def test_the_manifest_says_what_the_onnx_file_is(pooled_run: Run, tmp_path: Path, opset: int | None, expected: tuple[int, int, str]) -> None:
    out = tmp_path / "lower.clipstep"
    (artifact,) = export_network(pooled_run.spec("pooled"), out, ExportOptions(("onnx",), format_versions=chosen("opset", opset))).manifest.artifacts
    model = onnx.load(out / "step.onnx")
    assert artifact.requires == Requires(opset=model.opset_import[0].version, ir_version=model.ir_version, onnxruntime=expected[2])
    assert (artifact.requires.opset, artifact.requires.ir_version) == expected[:2]
    bundle = Bundle.open(out)
    assert bundle.manifest.artifacts[0].requires == artifact.requires
    with StepModel.load(out) as loaded:
        assert check_golden(loaded, GoldenSteps.of(bundle), "float32").relative < 1e-5


BETWEEN = [pytest.param(*case, marks=pytest.mark.heavy) for case in ((16, 13, 7), (18, 15, 9))]


@pytest.mark.parametrize(("ios", "macos", "specification"), [(15, 12, 6), *BETWEEN, (None, 14, 8)])
def test_the_manifest_says_what_the_core_ml_package_is(pooled_run: Run, tmp_path: Path, ios: int | None, macos: int, specification: int) -> None:
    """Apple's specification versions of iOS 15 to 18 are 6 to 9; both precisions pass their golden steps on the way."""
    out = tmp_path / "lower.clipstep"
    artifacts = export_network(pooled_run.spec("pooled"), out, ExportOptions(("coreml",), format_versions=chosen("ios", ios))).manifest.artifacts
    assert [artifact.precision for artifact in artifacts] == ["float32", "float16"]
    for artifact in artifacts:
        assert load_spec(str(out / artifact.file)).specificationVersion == specification
        assert artifact.requires == Requires(specification_version=specification, ios=f">={ios or 17}", macos=f">={macos}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format_versions": {"opset": 12}}, "--opset is out of range for onnx; got 12; expected 13 to 20"),
        ({"format_versions": {"opset": 21}}, "--opset is out of range for onnx; got 21; expected 13 to 20"),
        ({"format_versions": {"ios": 14}}, "--ios is out of range for coreml; got 14; expected 15 to 18"),
        ({"format_versions": {"opset": 17}, "targets": ("coreml",)}, "--opset is for onnx; got --target coreml; expected --target onnx among them"),
        ({"format_versions": {"ios": 15}, "targets": ("onnx",)}, "--ios is for coreml; got --target onnx; expected --target coreml among them"),
        ({"format_versions": {"opsets": 17}}, "unknown version of a format; got opsets; expected some of opset, ios"),
    ],
)
def test_versions_that_are_not_written_are_refused_with_those_that_are(options: dict[str, object], message: str) -> None:
    with pytest.raises(ClipstepError, match=f"^{re.escape(message)}$"):
        ExportOptions(**options)  # type: ignore[arg-type]


def test_what_torch_onnx_writes_has_fewer_operator_sets(pooled_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"needs torch\.onnx, which does not write that operator set; got opset 13; expected 18 to 20"):
        export_network(pooled_run.spec("pooled"), tmp_path / "no.clipstep", ExportOptions(("onnx",), "3d", format_versions={"opset": 13}))
    assert not (tmp_path / "no.clipstep").exists()
    out = tmp_path / "as-trained.clipstep"
    (artifact,) = export_network(pooled_run.spec("pooled"), out, ExportOptions(("onnx",), "3d", format_versions={"opset": 18})).manifest.artifacts
    assert artifact.requires == Requires(opset=18, ir_version=8, onnxruntime=">=1.15")
    _check_names(onnx.load(out / "step.onnx"))


def _check_names(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert all(names) and len(set(names)) == len(names)


def test_every_node_has_a_name_of_its_own_that_stays(bundle: Bundle, pooled_run: Run, tmp_path: Path) -> None:
    """onnxruntime 1.20 and 1.21 refuse nodes without names: "two nodes with same node name"."""
    _check_names(onnx.load(bundle.path / "step.onnx"))
    models = []
    for name in "ab":
        export_network(pooled_run.spec("pooled"), tmp_path / f"{name}.clipstep", ExportOptions(("onnx",)))
        models.append(onnx.load(tmp_path / f"{name}.clipstep/step.onnx"))
    first, second = ([(node.name, node.op_type) for node in model.graph.node] for model in models)
    assert first == second
    assert all(name == kind.lower() or name.startswith((f"{kind.lower()}_", "logits", "first_out", "newest_out")) for name, kind in first)


def test_inspect_shows_what_the_artifacts_need(clipstep: Callable[..., tuple[int, str, str]], bundle: Bundle) -> None:
    code, out, _ = clipstep("inspect", bundle.path)
    assert code == 0
    for words in ("needs opset 20, IR version 9, onnxruntime >=1.17", "needs ExecuTorch >=1.", "needs specification version 8, iOS >=17, macOS >=14"):
        assert words in out


def test_the_command_line_takes_versions(clipstep: Callable[..., tuple[int, str, str]], run_folder: Path, tmp_path: Path) -> None:
    code, _, err = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--opset", "9")
    assert (code, err) == (2, "error: --opset is out of range for onnx; got 9; expected 13 to 20\n")
    code, _, err = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--ios", "26")
    assert (code, err) == (2, "error: --ios is out of range for coreml; got 26; expected 15 to 18\n")
    assert COREML.format_version is not None and COREML.format_version.numbers == (15, 16, 17, 18)
