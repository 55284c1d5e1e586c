"""`clipstep verify`: what passes, and one line and exit code 2 for everything else."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.runtime.bundle import MANIFEST, Bundle
from clipstep.runtime.golden import GoldenSteps
from clipstep.training.run import Run, load_run, save_run

Cli = Callable[..., tuple[int, str, str]]
Rehash = Callable[..., Bundle]


def refused(result: tuple[int, str, str]) -> str:
    """The one line of an error."""
    code, _, err = result
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def test_the_bundle_equals_a_run_on_a_real_video(clipstep: Cli, bundle_copy: Path, rehash: Rehash, run_folder: Path, clip: Path) -> None:
    rehash(bundle_copy, "step.onnx")
    code, out, err = clipstep("verify", bundle_copy, "--run", run_folder, "--video", clip)
    assert (code, err) == (0, "")
    steps = int(out.split(" steps and a reset")[0].split()[-1])
    assert steps >= 16 and clip.name in out.replace("\n", "")
    assert "onnxruntime" in out and "equal" in out


def test_every_artifact_is_listed(clipstep: Cli, bundle_path: Path) -> None:
    code, out, _ = clipstep("verify", bundle_path)
    assert code == 0 and out.count("  equal  ") == 4 and "16 steps and a reset" in out.replace("\n", " ")
    assert re.findall(r"^verifying (\S+): \d+\.\d s$", out, re.MULTILINE) == [a.file for a in Bundle.open(bundle_path).manifest.artifacts]
    table = out[out.index("artifact  ") : out.index("* Core ML")]
    assert max(map(len, table.splitlines())) <= 80


def test_not_a_bundle(clipstep: Cli, tmp_path: Path) -> None:
    assert "is not a bundle; got no manifest.json" in refused(clipstep("verify", tmp_path))
    assert "is not a bundle" in refused(clipstep("verify", tmp_path / "nothing.clipstep"))


def test_an_altered_file(clipstep: Cli, bundle_copy: Path) -> None:
    (bundle_copy / "step.onnx").write_bytes(b"\0" + (bundle_copy / "step.onnx").read_bytes()[1:])
    assert "step.onnx was altered; got " in refused(clipstep("verify", bundle_copy))


@pytest.mark.parametrize("file", ["step.onnx", "step.pte"])
def test_an_artifact_that_its_runtime_cannot_read(file: str, clipstep: Cli, bundle_copy: Path, rehash: Rehash) -> None:
    (bundle_copy / file).write_bytes(b"not an artifact")
    rehash(bundle_copy, file)
    assert f"{file}: " in refused(clipstep("verify", bundle_copy))


def test_a_video_without_a_run(clipstep: Cli, bundle_path: Path, clip: Path) -> None:
    assert "--video needs --run or --model" in refused(clipstep("verify", bundle_path, "--video", clip))


def test_another_run(clipstep: Cli, bundle_path: Path, run: Run, tmp_path: Path) -> None:
    other = load_run_with_another_bias(run, tmp_path / "other")
    assert "is not the network that the bundle was exported from" in refused(clipstep("verify", bundle_path, "--run", other))


def load_run_with_another_bias(run: Run, folder: Path) -> Path:
    save_run(folder, run)
    other = load_run(folder)
    other.network.get_submodule("classifier").bias.data += 1  # type: ignore[union-attr, operator]
    save_run(folder, other, replace=True)
    return folder


def test_a_run_that_is_missing(clipstep: Cli, bundle_path: Path, tmp_path: Path) -> None:
    assert "is not a run; got no run.json" in refused(clipstep("verify", bundle_path, "--run", tmp_path))


def test_golden_steps_that_are_not_the_eager_networks(
    clipstep: Cli, bundle_copy: Path, golden: GoldenSteps, rehash: Rehash, run_folder: Path
) -> None:
    states = {name: value + 0.001 for name, value in golden.states.items()}
    GoldenSteps(golden.subclips, golden.logits, states).save(bundle_copy / "golden.safetensors")
    rehash(bundle_copy)
    assert "golden slow_buffer are not what the eager network computes" in refused(clipstep("verify", bundle_copy, "--run", run_folder))


def test_golden_steps_of_other_states(clipstep: Cli, bundle_copy: Path, golden: GoldenSteps, rehash: Rehash) -> None:
    GoldenSteps(golden.subclips, golden.logits, {}).save(bundle_copy / "golden.safetensors")
    rehash(bundle_copy)
    assert "golden.safetensors: cannot be read" in refused(clipstep("verify", bundle_copy))


def test_golden_steps_that_are_too_few(clipstep: Cli, bundle_copy: Path, golden: GoldenSteps, rehash: Rehash) -> None:
    few = GoldenSteps(golden.subclips, golden.logits[:2], {name: value[:2] for name, value in golden.states.items()})
    few.save(bundle_copy / "golden.safetensors")
    rehash(bundle_copy, "step.onnx")
    assert "golden" in refused(clipstep("verify", bundle_copy))


def test_a_manifest_with_states_that_the_artifact_does_not_have(clipstep: Cli, bundle_copy: Path, rehash: Rehash) -> None:
    rehash(bundle_copy, "step.onnx")
    values = json.loads((bundle_copy / MANIFEST).read_text())
    values["states"].reverse()
    values["outputs"] = ["logits", *reversed(values["outputs"][1:])]
    (bundle_copy / MANIFEST).write_text(json.dumps(values))
    assert "step.onnx: the manifest's states.slow_buffer.name is not the artifact's own; got fast_buffer" in refused(clipstep("verify", bundle_copy))


def test_json_gives_each_artifacts_errors(bundle_path: Path, clipstep: Cli) -> None:
    code, out, err = clipstep("verify", bundle_path, "--json")
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert values["reference"] == "golden steps"
    assert {row["file"]: row["runtime"] for row in values["artifacts"]}["step.onnx"] == "onnxruntime"
    assert all(0 <= row["max_relative_error"] <= row["bound"] for row in values["artifacts"])
