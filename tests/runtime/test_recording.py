"""What is noted in a manifest is added to what it holds at that moment: nothing that another has noted, or a newer clipstep knows, is lost."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clipstep.runtime import Bundle, BundleError
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.bundle.manifest import Accuracy, Arm64Step
from clipstep.runtime.bundle.recording import record_accuracy, record_arm64
from clipstep.runtime.filesystem.locking import WriteLockedError, write_lock

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
ACCURACY = Accuracy(dataset="ucf101", engine="onnxruntime", videos=4, crops=1, top1=0.75, top5=None)
COST = Arm64Step(engine="onnxruntime", engine_version="1", golden_steps=3, instructions=5, vector_fmas=1, loads=1, stores=1)
NOTE = """
import sys
from clipstep.runtime import Bundle
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.bundle.recording import record_accuracy
bundle = Bundle.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
record_accuracy(bundle, sys.argv[2], Accuracy(dataset="ucf101", engine="onnxruntime", videos=4, crops=1, top1=0.75, top5=None))
"""


def several(values: dict[str, Any], count: int) -> None:
    values["artifacts"] = [
        {**values["artifacts"][0], "target": target, "platform": platform, "precision": precision, "file": f"{target}-{platform}-{precision}"}
        for target in ("onnx", "executorch")
        for platform in ("any", "arm64", "x86_64")
        for precision in ("float32", "float16")
    ][:count]


@pytest.fixture
def many(edit_manifest: Edit) -> Path:
    """A bundle with twelve artifacts, of one content."""
    path = edit_manifest(lambda values: several(values, 12))
    for artifact in json.loads((path / "manifest.json").read_text())["artifacts"]:
        shutil.copy(path / "model.onnx", path / artifact["file"])
    return path


def test_threads_that_note_at_once_keep_each_others_notes(many: Path) -> None:
    bundle = Bundle.open(many)
    files = [artifact.file for artifact in bundle.manifest.artifacts]
    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(lambda file: record_accuracy(bundle, file, ACCURACY), files))
    assert [artifact.accuracy for artifact in Bundle.open(many).manifest.artifacts] == [ACCURACY] * len(files)
    assert not list(many.glob(".*")) and not list(many.parent.glob(".*"))


def test_processes_that_note_at_once_keep_each_others_notes(many: Path) -> None:
    files = [artifact.file for artifact in Bundle.open(many).manifest.artifacts][:3]
    running = [subprocess.Popen([sys.executable, "-c", NOTE, many, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for file in files]
    with write_lock(many):
        for process in running:
            assert process.stdout is not None and process.stdin is not None and process.stdout.readline() == "open\n"
        for process in running:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        with pytest.raises(subprocess.TimeoutExpired):
            running[0].wait(0.3)  # It waits for whoever writes to the bundle.
    assert [process.wait(30) for process in running] == [0, 0, 0]
    for process in running:
        process.communicate()
    noted = {artifact.file for artifact in Bundle.open(many).manifest.artifacts if artifact.accuracy}
    assert noted == set(files)


def test_two_kinds_of_note_stay(copied_bundle: Path) -> None:
    record_accuracy(Bundle.open(copied_bundle), "model.onnx", ACCURACY)
    record_arm64(Bundle.open(copied_bundle), {"model.onnx": COST})
    artifact = Bundle.open(copied_bundle).manifest.artifacts[0]
    assert (artifact.accuracy, artifact.arm64_step) == (ACCURACY, COST)


def test_a_note_changes_nothing_else(copied_bundle: Path) -> None:
    (copied_bundle / "manifest.json").write_text(Bundle.open(copied_bundle).manifest.text(), encoding="utf-8")
    before = (copied_bundle / "manifest.json").read_text(encoding="utf-8")
    record_accuracy(Bundle.open(copied_bundle), "model.onnx", ACCURACY)
    noted = (copied_bundle / "manifest.json").read_text(encoding="utf-8")
    changed = Bundle.open(copied_bundle).manifest
    assert noted == changed.text() and noted != before
    artifacts = tuple(artifact.model_copy(update={"accuracy": None}) for artifact in changed.artifacts)
    assert changed.model_copy(update={"artifacts": artifacts}).text() == before


def test_a_note_of_an_artifact_that_was_replaced_meanwhile_is_refused(copied_bundle: Path) -> None:
    """Such as by an export while it was measured: the number is the old file's."""
    bundle = Bundle.open(copied_bundle)
    (copied_bundle / "model.onnx").write_bytes((copied_bundle / "model.onnx").read_bytes() + b"\0")
    values = json.loads((copied_bundle / "manifest.json").read_text())
    model = copied_bundle / "model.onnx"
    values["artifacts"][0].update(sha256=tree_sha256(model), size_bytes=tree_size(model))
    (copied_bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"model\.onnx was replaced while it was measured; measure it again"):
        record_accuracy(bundle, "model.onnx", ACCURACY)
    assert json.loads((copied_bundle / "manifest.json").read_text()) == values


def test_a_bundle_that_was_signed_meanwhile_is_left_alone(copied_bundle: Path) -> None:
    bundle = Bundle.open(copied_bundle)
    (copied_bundle / "signature.json").write_text("{}")
    with pytest.raises(BundleError, match="is signed, and its signature would not fit"):
        record_accuracy(bundle, "model.onnx", ACCURACY)


def test_who_does_not_wait_is_refused_as_before(copied_bundle: Path) -> None:
    with write_lock(copied_bundle), ThreadPoolExecutor(1) as pool, pytest.raises(WriteLockedError):
        pool.submit(lambda: write_lock(copied_bundle).__enter__()).result()
