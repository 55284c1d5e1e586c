"""``clipstep bench --arch arm64`` without QEMU, with a fake emulator: what is refused, read and recorded."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from clipstep.benchmarks.arm64.kit import KIT_FILE, Kit, sources_sha256
from clipstep.benchmarks.arm64.processor import Processor
from clipstep.benchmarks.records import Counts
from clipstep.benchmarks.report import read_records
from clipstep.runtime.bundle import MANIFEST, Bundle, tree_sha256
from clipstep.runtime.errors import ClipstepError

Call = Callable[..., tuple[int, str, str]]
VERSIONS = {"onnxruntime": "1.0", "executorch": "1.0", "numpy": "1.0"}

FEATURES = ("fp", "asimd", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid", "asimdrdm", "lrcpc", "dcpop", "asimddp")
"""What Linux lists for a Cortex-A76 under QEMU."""

EMULATOR = f"""#!{sys.executable}
# Runs the ONNX runner on this computer and counts 1000 instructions, 200 FMAs, 30 loads, 4 stores and 777 MACs a step, 2000 the first.
import os, pathlib, subprocess, sys
PROCESSORS = {{"cortex-a53": "8fb 0 410fd034", "cortex-a76": "119ffb 0 414fd0b1", "max": "119ffb 2000 f0510"}}
if sys.argv[1:] == ["--version"]:
    sys.exit(print("qemu-aarch64 version 7.2.1 (Debian)"))
if sys.argv[1:] == ["-cpu", "help"]:
    print("Available CPUs:", *PROCESSORS, sep="\\n  ")
    sys.exit(1)
if sys.argv[-1] == "./processor":
    sys.exit(print(PROCESSORS[sys.argv[2]]))
runner = next(i for i, word in enumerate(sys.argv) if word.endswith("step_onnx.py"))
done = subprocess.run([sys.executable, *sys.argv[runner:]])
total, lines = 0, []
for step in range(int(sys.argv[runner + 3]) + 1):
    for add in (0, 2 if step == 0 else 1):
        total += add
        lines.append(f"173 {{1000 * total}} {{200 * total}} {{30 * total}} {{4 * total}} {{777 * total}} 0 0 0")
pathlib.Path(os.environ["CLIPSTEP_COUNTS"]).write_text("\\n".join(lines) + "\\n")
sys.exit(done.returncode)
"""


def counts(times: int) -> Counts:
    return Counts(instructions=1000 * times, vector_fmas=200 * times, loads=30 * times, stores=4 * times, float32_macs=777 * times)


@pytest.fixture
def edit(bundle_path: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A copy of the small bundle with only its ONNX artifact, verified with the kit's onnxruntime, then changed."""

    def change(what: Callable[[dict[str, Any]], Any]) -> Path:
        copy = Path(shutil.copytree(bundle_path, tmp_path / "copy.clipstep", dirs_exist_ok=True))
        values = json.loads((copy / MANIFEST).read_text())
        values["artifacts"] = values["artifacts"][:1]
        values["artifacts"][0]["tool_versions"]["onnxruntime"] = VERSIONS["onnxruntime"]
        what(values)
        (copy / MANIFEST).write_text(json.dumps(values))
        return copy

    return change


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit with the fake emulator."""
    folder, programs = tmp_path / "kit", tmp_path / "programs"
    (folder / "root/etc").mkdir(parents=True)
    programs.mkdir()
    (folder / KIT_FILE).write_text(json.dumps({"python": "python", "versions": VERSIONS, "sources_sha256": sources_sha256()}))
    (programs / "qemu-aarch64").write_text(EMULATOR)
    (programs / "qemu-aarch64").chmod(0o755)
    monkeypatch.setenv("CLIPSTEP_ARM64", str(folder))
    monkeypatch.setenv("PATH", str(programs))
    return folder


def unchanged(values: dict[str, Any]) -> None:
    """Change nothing."""


def test_counts_are_recorded_noted_and_reported(kit: Path, edit: Callable[..., Path], run_folder: Path, tmp_path: Path, clipstep: Call) -> None:
    bundle, out = edit(unchanged), tmp_path / "records.jsonl"
    macs = Bundle.open(bundle).manifest.export.multiply_accumulates
    code, _, error = clipstep("bench", bundle, "--arch", "arm64", "--run", run_folder, "--record", "--out", out)
    assert (code, error) == (0, "")
    timed, (naive, lowered), *_ = read_records(out)
    assert timed == []
    assert (naive.configuration.name, naive.artifact_sha256) == ("naive rank-5 ONNX", None)
    assert (lowered.configuration.name, lowered.configuration.engine, lowered.configuration.threads) == ("step.onnx", "onnxruntime", 1)
    assert (lowered.first_step, lowered.step) == (counts(2), counts(1))
    assert len(lowered.steps) == len(load_file(bundle / "golden.safetensors")["logits"])
    assert lowered.largest_error <= 1e-4
    assert macs is not None
    assert lowered.needed_per_mac == macs / 777
    assert lowered.useful == macs / 777 * 200 / 1000
    assert (lowered.cpu_model, lowered.cpu_features) == ("cortex-a76", FEATURES)
    assert json.loads(out.read_text().splitlines()[1])["step"]["instructions"] == 1000
    older = json.loads(out.read_text().splitlines()[1])
    for key in ("cpu_features", "needed_per_mac", "useful"):
        del older[key]
    for step in (older["first_step"], *older["steps"]):
        for key in ("float32_macs", "float16_macs", "integer_macs", "scalable"):
            del step[key]
    (tmp_path / "older.jsonl").write_text(json.dumps({**older, "needed_fmas": 1.0, "needed_fmas_per_vector_fma": 0.5}) + "\n")
    (read,) = read_records(tmp_path / "older.jsonl").counted
    assert (read.step.instructions, read.cpu_features, read.useful) == (1000, None, None)
    assert "cortex-a76 in qemu-aarch64 7.2.1: unknown features" in clipstep("report", bundle, tmp_path / "older.jsonl")[1]
    noted = Bundle.open(bundle).manifest.artifacts[0].arm64_step
    assert noted is not None and (noted.engine, noted.engine_version, noted.instructions) == ("onnxruntime", "1.0", 1000)
    report = clipstep("report", bundle, out)[1]
    assert "step.onnx in onnxruntime 1.0 on ARM64 (cortex-a76): 0.0 M instructions a step" in report
    assert "naive rank-5 ONNX" in report


def float16(values: dict[str, Any]) -> None:
    """Make the ONNX artifact one of two, the second in float16 for processors that compute in it."""
    half = {**values["artifacts"][0], "precision": "float16", "requires": {**values["artifacts"][0]["requires"], "float16_processor": True}}
    values["artifacts"].append(half)


def test_a_processor_is_named_with_what_it_has(kit: Path, edit: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    """Of a Cortex-A53, which does not compute in float16, the artifact in float16 is left out; a Cortex-A76 runs both."""
    bundle, out = edit(float16), tmp_path / "records.jsonl"
    command = ("bench", bundle, "--arch", "arm64", "--no-reference", "--steps", "1", "--out", out, "--cpu")
    code, text, error = clipstep(*command, "a53")
    assert (code, error) == (0, "")
    why = "cortex-a53 does not compute in float16, and runtimes take the artifact of float32 there"
    assert f"left out: step.onnx: {why}" in text
    assert "cortex-a53 in qemu-aarch64 7.2.1: no fp16, no dot product, no i8mm, no SVE, no SME" in text
    code, text, error = clipstep(*command, "cortex-a76")
    assert (code, error) == (0, "") and "left out" not in text
    assert "cortex-a76 in qemu-aarch64 7.2.1: fp16, dot product, no i8mm, no SVE, no SME" in text
    records = read_records(out)[1]
    assert [(r.cpu_model, r.configuration.precision) for r in records] == [
        ("cortex-a53", "float32"),
        ("cortex-a76", "float32"),
        ("cortex-a76", "float16"),
    ]
    report = clipstep("report", bundle, out)[1]
    assert "cortex-a53 in qemu-aarch64 7.2.1: no fp16" in report and "cortex-a76 in qemu-aarch64 7.2.1: fp16" in report


def test_engines_read_the_features_of_the_processor(kit: Path, tmp_path: Path) -> None:
    """Linux shows the parts of MIDR_EL1 0x414FD0B1: Arm (0x41), variant 4, part 0xD0B, revision 1."""
    Processor.read(kit, "a76").make_root(kit, tmp_path / "root")
    lines = (tmp_path / "root/proc/cpuinfo").read_text().splitlines()
    assert lines[2] == f"Features\t: {' '.join(FEATURES)}" and lines.count("processor\t: 1") == 1
    assert [line.split(": ")[1] for line in lines if line.startswith("CPU")] == 2 * ["0x41", "8", "0x4", "0xd0b", "1"]
    assert (tmp_path / "root/etc").is_dir()


def test_a_ceiling_below_the_count_fails(kit: Path, edit: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    file, bundle = tmp_path / "ceilings.json", edit(unchanged)

    def bench(text: str) -> tuple[int, str, str]:
        file.write_text(text)
        return clipstep("bench", bundle, "--arch", "arm64", "--no-reference", "--steps", "1", "--ceilings", file)

    code, text, _ = bench('{"step.onnx": 1000}')
    assert code == 0 and '"step.onnx": 100000' in text
    code, _, error = bench('{"step.onnx": 999}')
    assert code == 2
    assert "a step takes more ARM64 instructions than its ceiling; got step.onnx 1,000; expected at most step.onnx 999" in error
    code, _, error = bench('{"step.onnx": 1000, "step.pte": 1}')
    assert code == 2 and "are for other artifacts than those that were counted; got step.onnx, step.pte; expected step.onnx" in error
    for broken in ("[]", '{"step.onnx": "many"}', "{"):
        code, _, error = bench(broken)
        assert (code, len(error.splitlines())) == (2, 1) and "is not a file of ceilings" in error


def test_a_few_golden_steps(kit: Path, edit: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    out = tmp_path / "records.jsonl"
    assert clipstep("bench", edit(unchanged), "--arch", "arm64", "--no-reference", "--steps", "3", "--out", out)[0] == 0
    assert len(read_records(out)[1][0].steps) == 3


def test_wrong_outputs_are_not_recorded(kit: Path, edit: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    copy, out = edit(unchanged), tmp_path / "records.jsonl"
    golden = load_file(copy / "golden.safetensors")
    golden["logits"][4] += 1
    save_file(golden, copy / "golden.safetensors")
    edited = json.loads((copy / MANIFEST).read_text())
    edited["golden"]["sha256"] = tree_sha256(copy / "golden.safetensors")
    (copy / MANIFEST).write_text(json.dumps(edited))
    code, text, error = clipstep("bench", copy, "--arch", "arm64", "--no-reference", "--record", "--out", out)
    assert (code, text, len(error.splitlines())) == (2, "", 1)
    assert "step.onnx computes something else than the golden steps on ARM64: logits is off at step 4; got an error of 1" in error
    assert not out.exists()
    assert Bundle.open(copy).manifest.artifacts[0].arm64_step is None


def test_a_program_that_fails_is_named_with_its_last_word(kit: Path, edit: Callable[..., Path], clipstep: Call) -> None:
    def break_model(values: dict[str, Any]) -> None:
        (kit.parent / "copy.clipstep/step.onnx").write_bytes(b"nothing")
        values["artifacts"][0].update(size_bytes=7, sha256=tree_sha256(kit.parent / "copy.clipstep/step.onnx"))

    code, _, error = clipstep("bench", edit(break_model), "--arch", "arm64", "--no-reference")
    assert code == 2
    assert error.startswith("error: step.onnx does not run on ARM64; got ") and len(error.splitlines()) == 1


def other_engine(values: dict[str, Any]) -> None:
    values["artifacts"][0]["tool_versions"]["onnxruntime"] = "0.9"


def only_core_ml(values: dict[str, Any]) -> None:
    values["artifacts"][0].update(target="coreml")


def only_x86(values: dict[str, Any]) -> None:
    values["artifacts"][0].update(platform="x86_64")


def another_hash(values: dict[str, Any]) -> None:
    values["artifacts"][0].update(sha256="0" * 64)


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (other_engine, (), "step.onnx was verified with another onnxruntime than the ARM64 one; got 1.0; expected 0.9"),
        (only_core_ml, (), "holds Core ML artifacts alone, which run on Apple devices only"),
        (only_x86, (), "has no artifact that runs on ARM64 here; got onnx for x86_64"),
        (another_hash, (), "step.onnx was altered"),
        (unchanged, ("--steps", 1000), "the bundle has fewer golden steps; got 1000"),
        (unchanged, ("--threads", 1), "--threads and --rounds are for measuring time"),
        (unchanged, ("--out", "no/where.jsonl"), "no/where.jsonl: no such folder"),
        (unchanged, ("--arch", "riscv"), "unknown architecture; got riscv; expected arm64"),
        (unchanged, ("--cpu", "x3"), "no such processor; got x3; expected cortex-a53, cortex-a76, max; choose by what they have"),
        (unchanged, ("--cpu", "x3"), "fp16: cortex-a76, max; dot product: cortex-a76, max; i8mm: max"),
        (unchanged, ("--cpu", "a53", "--record"), "--record notes counts of cortex-a76 in the manifest; got --cpu a53"),
    ],
)
def test_what_cannot_be_counted_is_one_line(
    kit: Path, edit: Callable[..., Path], clipstep: Call, change: Callable[..., None], options: tuple[object, ...], expected: str
) -> None:
    code, text, error = clipstep("bench", edit(change), "--arch", "arm64", "--no-reference", *options)
    assert (code, text, len(error.splitlines())) == (2, "", 1)
    assert expected in error


def test_options_of_counts_need_an_architecture(bundle_path: Path, clipstep: Call) -> None:
    assert (
        "--cpu, --operators, --record and --ceilings are for counts; expected --arch arm64 beside them"
        in clipstep("bench", bundle_path, "--record")[2]
    )


def test_a_missing_kit_is_named(kit: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Kit.open().emulator == "qemu-aarch64 7.2.1"
    emulator = tmp_path / "programs/qemu-aarch64"
    emulator.write_text("#!/bin/sh\necho 'qemu-aarch64 version 10.0.3 (Debian)'\n")
    with pytest.raises(ClipstepError, match=r"another plugin interface; got qemu-aarch64 version 10\.0\.3 \(Debian\); expected QEMU 6, 7 or 8"):
        Kit.open()
    emulator.unlink()
    with pytest.raises(ClipstepError, match="qemu-aarch64 is not installed; on Debian: apt-get install qemu-user"):
        Kit.open()
    values = json.loads((kit / KIT_FILE).read_text())
    (kit / KIT_FILE).write_text(json.dumps({**values, "sources_sha256": "0"}))
    with pytest.raises(ClipstepError, match="were set up by another clipstep; set it up with: clipstep arm64"):
        Kit.open()
    monkeypatch.setenv("CLIPSTEP_ARM64", str(tmp_path / "none"))
    with pytest.raises(ClipstepError, match=r"the ARM64 engines are not set up; got no .*/none/kit\.json; set it up with: clipstep arm64"):
        Kit.open()


def test_setting_up_names_missing_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clipstep: Call, kit: Path) -> None:
    monkeypatch.setenv("CLIPSTEP_ARM64", str(tmp_path / "new"))
    assert "apt-get and dpkg are not there; expected a Debian system" in clipstep("arm64")[2]
    for name in ("apt-get", "dpkg"):
        (tmp_path / "programs" / name).write_text("#!/bin/sh\n")
        (tmp_path / "programs" / name).chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "tools are missing; as root: apt-get install gcc libc6-dev g++-aarch64-linux-gnu" in clipstep("arm64")[2]
    monkeypatch.setenv("CLIPSTEP_ARM64", str(tmp_path / "programs"))
    assert "exists and is not a kit of ARM64 engines" in clipstep("arm64")[2]
    assert not (tmp_path / "new").exists()


def test_a_failed_download_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clipstep: Call, kit: Path) -> None:
    monkeypatch.setenv("CLIPSTEP_ARM64", str(tmp_path / "new/kit"))
    for name in ("apt-get", "dpkg", "gcc", "aarch64-linux-gnu-g++"):
        (tmp_path / "programs" / name).write_text("#!/bin/sh\necho E: no network >&2\nexit 100\n")
        (tmp_path / "programs" / name).chmod(0o755)
    code, _, error = clipstep("arm64")
    assert (code, error) == (2, "error: setting up ARM64: apt-get failed with code 100; got E: no network\n")
    assert not (tmp_path / "new").exists()
