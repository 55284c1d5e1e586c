"""A bundle is data: no command imports, opens or starts anything that only a bundle names."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from clipstep.benchmarks.records import Record
from clipstep.runtime.bundle import MANIFEST, tree_sha256, tree_size

HOOK = """
# Every process of the command writes down what is done with the names that only the bundle gives.
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def seen(event, arguments):
    if event.split(".")[0] not in ("import", "open", "exec", "os", "subprocess", "shutil", "glob"):
        return
    text = " ".join(repr(part) for part in arguments if isinstance(part, (str, bytes, list, tuple)))
    if event == "exec":
        text = arguments[0].co_filename
    if "bait" in text:
        os.write(log, f"{{event}} {{text}}\\n".encode(errors="replace"))

sys.addaudithook(seen)
"""

DRIVER = """
import json, sys
from clipstep.runtime.command_line.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["clipstep", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            sys.exit(f"{arguments}: {stop.code}")
print("every command ran")
"""

BAIT = "open('caught.txt', 'a').write(__name__)\ndef factory():\n    open('caught.txt', 'a').write('called')\n"


@pytest.fixture
def hostile(bundle_copy: Path, tmp_path: Path) -> Path:
    """A bundle that names a module and files of this folder in every field of its manifest that can hold a name."""
    values: dict[str, Any] = json.loads((bundle_copy / MANIFEST).read_text())
    bait = str(tmp_path / "work/bait.json")
    values["name"] = "bait_module"
    values["provenance"].update(kind="run", source="bait_module:factory", architecture="bait_module", training={"bait": bait, "checkpoint": bait})
    values["export"]["clipstep_version"] = bait
    values["provenance"]["config"]["bait_module"] = 1
    values["labels"] = ["bait_module:factory", "../bait.json", f"file://{bait}"]
    for artifact in values["artifacts"]:
        artifact["tool_versions"] = {"bait_module": bait}
        artifact["placement"]["not_delegated"] = ["bait_module"]
        artifact["parity"]["reference"] = bait
    values["artifacts"] = values["artifacts"][:1]  # The one whose embedded facts are changed along with the manifest's.
    values["artifacts"][0].update(_say(bundle_copy / "step.onnx", values))
    (bundle_copy / MANIFEST).write_text(json.dumps(values))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/bait_module.py").write_text(BAIT)
    (tmp_path / "work/bait.json").write_text("{}")
    return bundle_copy


def _say(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Put the names into an ONNX file's embedded metadata, too, and return its new size and hash."""
    model = onnx.load(path)
    facts = {**json.loads(model.metadata_props[0].value), "name": values["name"], "labels": values["labels"]}
    onnx.helper.set_model_props(model, {"clipstep": json.dumps(facts), "bait_module": "bait_module:factory"})
    onnx.save(model, path)
    return {"size_bytes": tree_size(path), "sha256": tree_sha256(path)}


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., tuple[list[str], str]]:
    """Run Python in the folder ``work`` under an audit hook; return the events whose arguments contain ``bait``, and the output."""

    def run(*arguments: str) -> tuple[list[str], str]:
        site, log = tmp_path / "site", tmp_path / "log"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(HOOK.format(log=str(log)))
        log.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": f"{site}:{tmp_path / 'work'}", "COLUMNS": "200"}
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path / "work", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return log.read_text().splitlines(), done.stdout

    return run


def record_of(artifact: dict[str, Any], bundle: Path) -> str:
    """A record with the bait in every text."""
    bait, configuration = (
        "bait_module",
        {"target": "onnx", "form": "3d", "precision": "float32", "engine": "bait_module", "threads": 1, "file": "bait.json"},
    )
    values = {
        "bundle": bait,
        "manifest_sha256": "0" * 64,
        "artifact_sha256": artifact["sha256"],
        "configuration": {"name": bait, **configuration},
        "cold_start": {"load_s": 1, "first_step_ms": 1, "threads_used": 1, "largest_error": 0},
        "device": {"cpu_model": bait, "cores": 1, "os": bait, "machine": bait},
        "tool_versions": {bait: bait},
        "placement": {bait: 1},
        "not_delegated": [bait],
        "file_bytes": 1,
        "subclip_s": 1,
        "peak_memory_bytes": 1,
        "memory_before_load_bytes": 1,
        "step_ms": [1],
    }
    return Record.model_validate(values).model_dump_json()


def test_no_command_imports_opens_or_starts_what_only_a_bundle_names(
    hostile: Path, watched: Callable[..., tuple[list[str], str]], clip: Path, tmp_path: Path
) -> None:
    artifact = json.loads((hostile / MANIFEST).read_text())["artifacts"][0]
    records = tmp_path / "records.jsonl"
    records.write_text(record_of(artifact, hostile) + "\n")
    short = ("--threads", "1", "--rounds", "1", "--steps", "1")
    picture = ("--profile", tmp_path / "profile.png", "--steps", "1", "--threads", "1")
    commands = [
        ("inspect", hostile),
        ("inspect", hostile, "--json"),
        ("inspect", hostile / "step.onnx"),
        ("inspect", hostile / "step.pte"),
        ("verify", hostile),
        ("run", hostile, clip),
        ("bench", hostile, *short),
        ("bench", hostile, *picture),
        ("report", hostile, records, "--html", tmp_path / "report.html"),
        ("pack", hostile, "--for", "python", "--golden", "synthetic", "--out", tmp_path / "x.clipstep.zip"),
        ("run", tmp_path / "x.clipstep.zip", clip),
    ]
    seen, said = watched("-c", DRIVER, json.dumps([[str(word) for word in command] for command in commands]))
    assert "every command ran" in said and "bait_module:factory" in said
    assert seen == []
    assert not (tmp_path / "work/caught.txt").exists()


def test_the_hook_sees_an_import_an_open_and_a_process(hostile: Path, watched: Callable[..., tuple[list[str], str]], tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    seen, _ = watched("-c", "import bait_module, subprocess; open('bait.json'); subprocess.run(['echo', 'bait'])")
    assert {line.split()[0] for line in seen} >= {"import", "open", "subprocess.Popen"}
    assert (tmp_path / "work/caught.txt").read_text() == "bait_module"


def test_a_module_that_lies_in_a_bundle_is_not_imported(bundle_copy: Path, tmp_path: Path) -> None:
    """Not even by the processes that bench starts when the bundle is the current folder, from which Python would import numpy first."""
    for name in ("numpy", "json", "torch", "clipstep"):
        (bundle_copy / f"{name}.py").write_text("raise SystemExit('a stranger runs')")
    code = "import sys; from clipstep.runtime.command_line.cli import main; sys.argv[0] = 'clipstep'; main()"
    arguments = ("bench", ".", "--threads", "1", "--rounds", "1", "--steps", "1", "--out", str(tmp_path / "records.jsonl"))
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], cwd=bundle_copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2
