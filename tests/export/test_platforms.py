"""Artifacts for one processor, and the cheapest variant of one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest

from clipstep.export.choosing import Measured
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.training.run import Run

Cli = Callable[..., tuple[int, str, str]]


class Costs:
    """A measure that says what it is told, and remembers the files that it saw."""

    def __init__(self, costs: Mapping[str, Mapping[str, float]]) -> None:
        self.costs = costs
        self.seen: dict[str, dict[str, bytes]] = {}

    def __call__(
        self, platform: str, target: str, precision: str, files: Mapping[str, Path], interface: Interface, golden: GoldenSteps
    ) -> tuple[str, dict[str, Measured]]:
        self.seen[platform] = {name: file.read_bytes() for name, file in files.items()}
        return ("M ARM64 instructions" if platform == "arm64" else "ms"), {name: Measured(self.costs[platform].get(name, 9.0)) for name in files}


def test_the_cheapest_variant_is_kept_for_each_platform_and_noted(pooled_run: Run, tmp_path: Path) -> None:
    costs = Costs({"arm64": {"per-frame": 1.5}, "x86_64": {"3d": 2.25}})
    export_network(pooled_run.spec(), tmp_path / "two.clipstep", ExportOptions(targets=("onnx",), platforms=("arm64", "x86_64"), tune=costs))
    bundle = Bundle.open(tmp_path / "two.clipstep")
    for platform, chosen, form, unit in (("arm64", "per-frame", "lowered", "M ARM64 instructions"), ("x86_64", "3d", "3d", "ms")):
        artifact = bundle.artifact("onnx", platform)
        assert (artifact.platform, artifact.form, artifact.file) == (platform, form, f"step-{platform}.onnx")
        assert artifact.tuning is not None and (artifact.tuning.chosen, artifact.tuning.unit) == (chosen, unit)
        assert artifact.tuning.measured == {name: costs.costs[platform].get(name, 9.0) for name in ("channel-major", "per-frame", "3d")}
        assert (bundle.path / artifact.file).read_bytes() == costs.seen[platform][chosen]
        ranks = {
            len(value.type.tensor_type.shape.dim)
            for value in onnx.shape_inference.infer_shapes(onnx.load(bundle.path / artifact.file)).graph.value_info
        }
        assert (5 in ranks) == (form == "3d")
    assert len(set(costs.seen["arm64"].values())) == 3


def test_of_equally_cheap_variants_the_default_one_is_kept(pooled_run: Run, tmp_path: Path) -> None:
    export_network(
        pooled_run.spec(), tmp_path / "x.clipstep", ExportOptions(targets=("executorch",), platforms=("arm64",), tune=Costs({"arm64": {}}))
    )
    (artifact,) = Bundle.open(tmp_path / "x.clipstep").manifest.artifacts
    assert artifact.tuning is not None and artifact.tuning.chosen == "gemm"


def test_a_form_asked_for_is_kept_when_tuning(pooled_run: Run, tmp_path: Path) -> None:
    costs = Costs({"arm64": {"3d": 1.0}})
    export_network(pooled_run.spec(), tmp_path / "x.clipstep", ExportOptions(targets=("onnx",), form="lowered", platforms=("arm64",), tune=costs))
    assert set(costs.seen["arm64"]) == {"channel-major", "per-frame"}  # The other variants are the same files in so small a network.


def test_without_tuning_a_platform_gets_the_default_variant(pooled_run: Run, tmp_path: Path) -> None:
    manifest = export_network(pooled_run.spec(), tmp_path / "x.clipstep", ExportOptions(platforms=("arm64", "any"))).manifest
    assert [(a.file, a.platform, a.tuning) for a in manifest.artifacts] == [
        ("step-arm64.onnx", "arm64", None),
        ("step.onnx", "any", None),
        ("step-arm64.pte", "arm64", None),
        ("step.pte", "any", None),
        ("step-float32.mlpackage", "any", None),
        ("step-float16.mlpackage", "any", None),
    ]
    bundle = Bundle.open(tmp_path / "x.clipstep")
    assert (bundle.artifact("onnx", "x86_64").file, bundle.artifact("onnx", "arm64").file) == ("step.onnx", "step-arm64.onnx")
    assert (bundle.path / "step.onnx").read_bytes() == (bundle.path / "step-arm64.onnx").read_bytes()


def test_a_platform_may_have_a_default_variant_of_its_own(pooled_run: Run, tmp_path: Path) -> None:
    """Both compute the same, on either processor: the export verifies them here."""
    export_network(pooled_run.spec(), tmp_path / "x.clipstep", ExportOptions(targets=("executorch",), platforms=("arm64", "x86_64")))
    bundle = Bundle.open(tmp_path / "x.clipstep")
    assert (bundle.path / "step-x86_64.pte").read_bytes() != (bundle.path / "step-arm64.pte").read_bytes()


def test_tuning_needs_a_platform(run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    with pytest.raises(
        ClipstepError,
        match="--tune needs a platform, because what is cheapest depends on the processor; got any; expected --platform arm64 or x86_64 with --tune",
    ):
        ExportOptions(tune=Costs({}))
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--tune")
    assert code == 2 and error.startswith("error: --tune needs a platform, because what is cheapest depends on the processor")
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--platform", "riscv")
    assert code == 2 and "'riscv' is not one of 'any', 'arm64', 'x86_64'" in error
    assert list(tmp_path.iterdir()) == []
