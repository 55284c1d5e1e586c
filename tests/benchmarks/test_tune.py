"""What ``clipstep export --tune`` measures."""

import platform as machine
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from clipstep.benchmarks.peak_memory import peak_memory_bytes
from clipstep.benchmarks.report import read_records
from clipstep.benchmarks.tune import tune
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.skipif(machine.machine() not in ("x86_64", "AMD64"), reason="times x86_64")
@pytest.mark.long
def test_the_command_times_each_variant_and_the_bundle_runs(run_folder: Path, tmp_path: Path, clip: Path, clipstep: Cli) -> None:
    out = tmp_path / "tuned.clipstep"
    code, said, _ = clipstep("export", run_folder, "--out", out, "--target", "onnx", "--platform", "x86_64", "--tune")
    assert code == 0
    (artifact,) = Bundle.open(out).manifest.artifacts
    assert artifact.tuning is not None
    assert artifact.tuning.measured[artifact.tuning.chosen] == min(artifact.tuning.measured.values()) > 0
    assert f"; {artifact.tuning}" in said and str(artifact.tuning).endswith(" ms")
    assert f"; {artifact.tuning}" in clipstep("inspect", out)[1]
    assert f"step-x86_64.onnx ({artifact.form}, for x86_64) in onnxruntime" in clipstep("run", out, clip)[1]


def test_another_processor_cannot_time_x86_64(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(bundle_path)
    monkeypatch.setattr(machine, "machine", lambda: "riscv64")
    with pytest.raises(ClipstepError, match="--tune times x86_64 on an x86_64 processor; got riscv64"):
        tune("x86_64", "onnx", "float32", {"a": bundle_path / "step.onnx"}, bundle.manifest.interface("uint8"), GoldenSteps.of(bundle))


def test_peak_memory_is_that_of_a_process_that_loads_the_file(bundle_path: Path, tmp_path: Path) -> None:
    """Also of weights that no operator reads, and that the engine drops after it has read the file."""
    model = onnx.load(bundle_path / "step.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(20_000_000, np.float32), "unused"))
    onnx.save(model, tmp_path / "large.onnx")
    interface = Bundle.open(bundle_path).manifest.interface("uint8")
    taken = {file.name: peak_memory_bytes("onnxruntime", file, interface) for file in (bundle_path / "step.onnx", tmp_path / "large.onnx")}
    assert 1e6 < taken["step.onnx"] < 80e6 < taken["large.onnx"] < 500e6
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ClipstepError, match=r"the memory of broken\.onnx cannot be measured; got .*EngineError: .*broken\.onnx"):
        peak_memory_bytes("onnxruntime", tmp_path / "broken.onnx", interface)


@pytest.mark.arm64
def test_on_arm64_the_cost_is_what_bench_counts(run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    out, records = tmp_path / "tuned.clipstep", tmp_path / "records.jsonl"
    assert clipstep("export", run_folder, "--out", out, "--target", "executorch", "--platform", "arm64", "--tune")[0] == 0
    (artifact,) = Bundle.open(out).manifest.artifacts
    assert artifact.tuning is not None and artifact.tuning.unit == "M ARM64 instructions"
    assert clipstep("bench", out, "--arch", "arm64", "--no-reference", "--steps", 2, "--out", records)[0] == 0
    (counted,) = read_records(records).counted
    golden, interface, files = GoldenSteps.of(Bundle.open(out)), Bundle.open(out).manifest.interface("uint8"), {"a": out / artifact.file}
    _, right = tune("arm64", "executorch", "float32", files, interface, golden)
    _, wrong = tune("arm64", "executorch", "float32", files, interface, replace(golden, logits=golden.logits + 0.1))
    assert right["a"].fault is None and str(wrong["a"].fault).startswith(
        "it computes something else than the golden steps on ARM64: logits is off at"
    )
    assert wrong["a"].cost == pytest.approx(right["a"].cost, rel=0.02)
    assert counted.step.instructions / 1e6 == pytest.approx(artifact.tuning.measured[artifact.tuning.chosen], rel=0.02)
