"""``clipstep bench`` and ``clipstep report`` on a small bundle: records, ratios, refusals."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from clipstep.benchmarks.records import Record, naive_ms
from clipstep.benchmarks.report import read_records
from clipstep.runtime.bundle import MANIFEST, Bundle, tree_sha256
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.bundle.recording import record_accuracy
from clipstep.runtime.command_line.cli import main
from clipstep.runtime.install_hints import install_extra


@pytest.fixture(scope="module")
def records_file(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, run_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("records") / "records.jsonl"
    assert call("bench", bundle_path, "--run", run_folder, "--threads", "1", "--rounds", "3", "--steps", "2", "--out", out) == 0
    return out


def call(*arguments: object) -> int:
    """The command's exit code, in this process."""
    before, sys.argv = sys.argv, ["clipstep", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def test_each_configuration_has_one_record_that_says_what_ran(records_file: Path, bundle_path: Path) -> None:
    records = read_records(records_file).timed
    manifest = json.loads((bundle_path / MANIFEST).read_text())
    hashes = {artifact["target"]: artifact["sha256"] for artifact in manifest["artifacts"]}
    ran = {(r.configuration.target, r.configuration.form, r.configuration.engine): r.artifact_sha256 for r in records}
    assert ran == {
        ("onnx", "3d", "onnxruntime"): None,
        ("pytorch", "3d", "pytorch"): None,
        ("onnx", "lowered", "onnxruntime"): hashes["onnx"],
        ("executorch", "lowered", "executorch"): hashes["executorch"],
    }
    for record in records:
        assert len(record.step_ms) == 3 * 2
        assert record.cold_start.threads_used == record.configuration.threads == 1
        assert record.cold_start.largest_error <= 1e-4
        assert record.manifest_sha256 == tree_sha256(bundle_path / MANIFEST)
        assert record.peak_memory_bytes >= record.memory_before_load_bytes > 0
        assert record.subclip_s == 4 / 25
        assert record.measured_utc is not None and 0 <= time.time() - record.measured_utc.timestamp() < 3600


def test_percentiles_and_real_time_factor_follow_from_the_raw_times(records_file: Path) -> None:
    for line in records_file.read_text().splitlines():
        values = json.loads(line)
        median = float(np.median(values["step_ms"]))
        assert values["percentiles_ms"]["p50"] == pytest.approx(median, abs=1e-4)
        assert values["steps_per_s"] == pytest.approx(1000 / median)
        assert values["real_time_factor"] == pytest.approx(0.16 / (median / 1000))


def test_the_report_gives_each_artifact_its_own_ratio(records_file: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = read_records(records_file).timed
    assert call("report", bundle_path, records_file) == 0
    text = capsys.readouterr().out
    for record in records:
        if record.artifact_sha256:
            line = next(line for line in text.splitlines() if record.configuration.name in line)
            assert f"{naive_ms(records)[1] / record.percentile_ms(50):.2f}" in line


def test_the_report_says_the_accuracy_that_was_noted(
    records_file: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "noted.clipstep"))
    accuracy = Accuracy(dataset="ucf101, testlist02", engine="executorch", videos=40, crops=5, top1=0.725, top5=0.95)
    record_accuracy(Bundle.open(copy), "step.pte", accuracy)
    assert call("report", copy, records_file) == 0
    text = capsys.readouterr().out
    assert "step.pte in executorch: top-1 72.5% of 40 videos (95% interval 57% to 84%), top-5 95.0%: ucf101, testlist02, 5 crops\n" in text
    assert "step.onnx in" not in text


@pytest.mark.parametrize("options", [(), ("--no-reference",)])
def test_without_the_network_the_artifacts_alone_are_measured(
    bundle_path: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "records.jsonl"
    assert call("bench", bundle_path, *options, "--threads", "1", "--rounds", "1", "--steps", "1", "--out", out) == 0
    assert {record.configuration.form for record in read_records(out)[0]} == {"lowered"}
    hint = "its artifacts alone; PyTorch and naive ONNX beside them with --run RUN or --model FACTORY"
    assert (hint in capsys.readouterr().out) == (not options)


def test_wrong_outputs_are_not_timed(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The golden logits are shifted, and the manifest made to agree, so that every artifact is wrong."""
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "copy.clipstep"
    shutil.copytree(bundle_path, copy)
    golden = load_file(copy / "golden.safetensors")
    save_file({**golden, "logits": golden["logits"] + 1}, copy / "golden.safetensors")
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["golden"]["sha256"] = tree_sha256(copy / "golden.safetensors")
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert call("bench", copy, "--no-reference", "--threads", "1", "--out", tmp_path / "records.jsonl") == 2
    assert "computes something else than the golden steps; got a relative error of 0" in capsys.readouterr().err
    assert not (tmp_path / "records.jsonl").exists()


def test_bad_input_is_one_line_and_exit_code_2(bundle_path: Path, records_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "broken.jsonl").write_text("{}\n")
    shutil.copytree(bundle_path, tmp_path / "moved.clipstep")
    cases = [
        (("bench", tmp_path / "none.clipstep"), "is not a bundle"),
        (("bench", bundle_path, "--threads", "1000"), "thread count not available"),
        (("bench", bundle_path, "--run", tmp_path), "is not a run"),
        (("bench", bundle_path, "--run", "os:abort"), "--run names no folder; got os:abort; a factory is given by --model os:abort"),
        (("bench", bundle_path, "--run", tmp_path, "--model", "a:b"), "--run and --model both name the network"),
        (("bench", bundle_path, "--run", tmp_path, "--weights", "w.pt"), "--weights is for --model"),
        (("bench", bundle_path, "--weights", "w.pt"), "add --model package.module:factory"),
        (("bench", bundle_path, "--run", tmp_path, "--no-reference"), "--no-reference leaves out the network that --run gives"),
        (("peers", bundle_path, "--peer", "openvino"), "other runtimes convert the network behind the bundle; got none; give --run RUN, or --model"),
        (("bench", bundle_path, "--out", tmp_path / "no/where.jsonl"), "no such folder"),
        (("report", bundle_path, tmp_path / "none.jsonl"), "no such file"),
        (("report", bundle_path, tmp_path / "empty.jsonl"), "empty.jsonl: holds no record of"),
        (("report", bundle_path, tmp_path / "broken.jsonl"), "broken.jsonl:1: is not a record"),
    ]
    for arguments, expected in cases:
        assert call(*arguments) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert len(error.splitlines()) == 1


def test_a_record_refuses_unknown_keys(records_file: Path) -> None:
    values = read_records(records_file)[0][0].model_dump(exclude=set(Record.model_computed_fields))
    with pytest.raises(ValueError, match="speed"):
        Record.model_validate({**values, "speed": 1})


OWN = """
import torch
from torch import nn

def factory():
    torch.manual_seed({seed})
    return Own()

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv3d(3, 8, 3, 2, 1), nn.Linear(8, 3)

    def forward(self, frames):
        return (self.linear(self.conv(frames).relu().mean((2, 3, 4))),)
"""


def test_a_factorys_network_is_measured_in_pytorch_and_as_naive_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("benched.py").write_text(OWN.format(seed=5))
    Path("classes.txt").write_text("a\nb\nc\n")
    arguments = ("--labels", "classes.txt", "--frames", 4, "--size", 24, "--target", "onnx", "--out", "own.clipstep")
    assert call("export", "--model", "benched:factory", *arguments) == 0
    measured = ("--threads", 1, "--rounds", 1, "--steps", 2, "--out", "records.jsonl")
    assert call("bench", "own.clipstep", "--model", "benched:factory", *measured) == 0
    records = read_records(Path("records.jsonl")).timed
    assert [record.configuration.name for record in records] == ["naive rank-5 ONNX", "PyTorch eager", "step.onnx"]
    assert all(record.cold_start.largest_error < 1e-5 for record in records)


def test_a_factory_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("another.py").write_text(OWN.format(seed="torch.seed() % 2**31"))
    Path("classes.txt").write_text("a\nb\nc\n")
    arguments = ("--labels", "classes.txt", "--frames", 4, "--size", 24, "--target", "onnx", "--out", "own.clipstep")
    assert call("export", "--model", "another:factory", *arguments) == 2
    assert "another:factory: its weights are random, and differ from call to call" in capsys.readouterr().err
    assert call("export", "--model", "another:factory", "--random-weights", *arguments) == 0
    assert call("bench", "own.clipstep", "--model", "another:factory") == 2
    said = "error: another:factory: is not the network that the bundle was exported from; give that one, with its --weights if it had any"
    assert said in capsys.readouterr().err


def test_a_factory_takes_its_weights_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The factory alone creates other weights than the exported ones."""
    monkeypatch.chdir(tmp_path)
    Path("weighted.py").write_text(OWN.format(seed=6))
    namespace: dict[str, Any] = {}
    exec(OWN.format(seed=7), namespace)
    save_file(namespace["factory"]().state_dict(), "seven.safetensors")
    Path("classes.txt").write_text("a\nb\nc\n")
    arguments = (
        "--weights",
        "seven.safetensors",
        "--labels",
        "classes.txt",
        "--frames",
        4,
        "--size",
        24,
        "--target",
        "onnx",
        "--out",
        "own.clipstep",
    )
    assert call("export", "--model", "weighted:factory", *arguments) == 0
    measured = ("--threads", 1, "--rounds", 1, "--steps", 1, "--out", "records.jsonl")
    assert call("bench", "own.clipstep", "--model", "weighted:factory", "--weights", "seven.safetensors", *measured) == 0
    assert max(record.cold_start.largest_error for record in read_records(Path("records.jsonl"))[0]) < 1e-5
    assert call("bench", "own.clipstep", "--model", "weighted:factory") == 2
    assert "with its --weights if it had any" in capsys.readouterr().err


def test_spinning_threads_are_measured_beside_sleeping_ones(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "records.jsonl"
    options = ("--no-reference", "--threads", "1", "--rounds", "1", "--steps", "2", "--pause", "3", "--spinning", "--out", out)
    assert call("bench", bundle_path, *options) == 0
    records = read_records(out).timed
    assert [(r.configuration.name, r.configuration.spinning) for r in records] == [
        ("step.onnx", False),
        ("step.onnx, spinning threads", True),
        ("step.pte", False),
    ]
    assert records[0].artifact_sha256 == records[1].artifact_sha256
    assert all(r.pause_ms == 3 and r.processor_ms is not None and r.processor_ms > 0 for r in records)
    assert " cpu " in capsys.readouterr().out
    assert call("bench", bundle_path, "--arch", "arm64", "--spinning") == 2
    assert "--pause, --spinning and --video are for measuring time" in capsys.readouterr().err


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "executorch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""As ``sitecustomize``, which Python imports at its start: a base install in the command and in the processes that it starts."""


def _bench_on_a_base_install(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    (folder / "sitecustomize.py").write_text(WITHOUT_TORCH)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "clipstep", "bench", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_base_install_measures_what_it_can_and_says_what_it_left_out(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    done = _bench_on_a_base_install(tmp_path, bundle_path, "--threads", 1, "--rounds", 1, "--steps", 1, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"left out: step.pte: engine executorch needs executorch, torch, which are not installed; {install_extra('export')}" in done.stdout
    assert [record.configuration.name for record in read_records(out)[0]] == ["step.onnx"]
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("step.onnx "))
    assert len(row) <= 80


def test_a_base_install_that_can_measure_nothing_says_what_to_install(bundle_copy: Path, tmp_path: Path) -> None:
    values = json.loads((bundle_copy / MANIFEST).read_text())
    values["artifacts"] = [artifact for artifact in values["artifacts"] if artifact["target"] == "executorch"]
    (bundle_copy / MANIFEST).write_text(json.dumps(values))
    done = _bench_on_a_base_install(tmp_path, bundle_copy)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "holds nothing that can be measured here; got step.pte" in line and install_extra("export") in line


def test_a_whole_stream_is_measured_beside_the_steps(bundle_path: Path, clip: Path, tmp_path: Path, capsys: Any) -> None:
    """The parts are within the subclips' times; the factor is that of the whole, the printed one, too."""
    out = tmp_path / "records.jsonl"
    assert call("bench", bundle_path, "--threads", "1", "--rounds", "1", "--steps", "3", "--video", clip, "--out", out) == 0
    printed = capsys.readouterr().out
    records = read_records(out).timed
    whole = [record for record in records if record.configuration.video is not None]
    assert [record.configuration.name for record in whole] == ["step.onnx, whole stream", "step.pte, whole stream"]
    assert [record.parts is None for record in records] == [record not in whole for record in records]
    for record in whole:
        parts = record.parts
        assert parts is not None and min(parts.decode_ms, parts.resize_ms, parts.step_ms) > 0
        assert max(parts.decode_ms, parts.resize_ms, parts.step_ms) < max(record.step_ms)
        assert record.artifact_sha256 is not None and record.real_time_factor == pytest.approx(160 / record.percentile_ms(50))
        shares = {"decoding": parts.decode_ms, "cropping and resizing": parts.resize_ms, "the step": parts.step_ms}
        said = ", ".join(f"{name} {ms / sum(shares.values()):.0%}" for name, ms in shares.items())
        assert f"{record.configuration.name} of {clip.name}, 1 thread: {said}" in printed
    assert call("report", bundle_path, out) == 0
    assert "step.onnx, whole stream" in capsys.readouterr().out


def test_a_video_that_cannot_be_measured_is_refused_before_anything_is(bundle_path: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    assert call("bench", bundle_path, "--no-reference", "--video", tmp_path / "text.mp4") == 2
    assert "text.mp4: cannot be decoded" in capsys.readouterr().err
