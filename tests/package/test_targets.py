"""A target is one file and one line on each side, the runtime's and the export's; whatever else has to name targets is held to the tables."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipstep.benchmarks.arm64.emulate import GUESTS
from clipstep.benchmarks.arm64.install import WHEELS
from clipstep.benchmarks.profile import PROFILERS
from clipstep.benchmarks.scaling import BARE_CALLS
from clipstep.export.targets import TARGETS, coreml_writer, executorch_writer, onnx_writer
from clipstep.export.targets.target import Writer
from clipstep.runtime.engines import ENGINES, engine_of
from clipstep.runtime.targets import TARGETS as RUNTIME_TARGETS

ROOT = Path(__file__).parents[2]
WRITERS: dict[str, Writer] = {"onnx": onnx_writer, "executorch": executorch_writer, "coreml": coreml_writer}
"""Type checkers compare each module with the protocol."""
OWN_FILES = ("export/targets/", "runtime/python/target_", "runtime/python/engine_", "runtime/python/checks/")
ALLOWED = {
    ("benchmarks/arm64/emulate.py", "executorch"): "the programs of the kit, by engine",
    ("benchmarks/arm64/install.py", "executorch"): "the wheels of the kit",
    ("benchmarks/latency.py", "onnx"): "the reference, naive ONNX, by its format",
    ("benchmarks/peers/engines.py", ".onnx"): "what other runtimes' converters read",
    ("benchmarks/peers/engines.py", "onnx"): "a library that MNN's converter imports",
    ("benchmarks/profile.py", "executorch"): "profilers, by engine",
    ("benchmarks/scaling.py", "executorch"): "the engines' own calls, by engine",
    ("benchmarks/zoo/tables.py", "executorch"): "the target whose steps are cut into delegate calls",
    ("export/explained.py", "executorch"): "a library whose errors are explained",
    ("export/explained.py", "onnx"): "a library whose errors are explained",
    ("runtime/python/executorch_internals.py", "executorch"): "the distribution",
}
"""Texts that are what a target is called, in other files, and what they name there."""
FOURTH = {
    "runtime/target_pt2.py": '''
"""The target ``pt2``: a program of torch.export."""

from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.target import FileContent, TargetInfo, Tensor, counted_by_type


def read_pt2(path):
    import torch

    extra = {METADATA: ""}
    program = torch.export.load(str(path), extra_files=extra)
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}

    def tensors(names):
        return [Tensor(name=None, dtype=str(values[n].dtype).removeprefix("torch."), shape=tuple(values[n].shape)) for n in names]

    return FileContent(
        inputs=tensors(program.graph_signature.user_inputs),
        outputs=tensors(program.graph_signature.user_outputs),
        operations=counted_by_type(str(node.target) for node in program.graph.nodes if node.op == "call_function"),
        weights_bytes=None,
        written_by="torch.export",
        metadata=extra[METADATA],
    )


PT2 = TargetInfo(name="pt2", display_name="PT2", suffix=".pt2", read=read_pt2, imports=("torch",), destinations=())
''',
    "export/targets/pt2.py": '''
"""The target ``pt2``: a program of torch.export, run by PyTorch."""

from clipstep.export.targets.onnx import PROFILE
from clipstep.export.targets.target import Evaluator, FormatVersion, Target
from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.bundle.manifest import Placement, Requires
from clipstep.runtime.target_pt2 import PT2 as INFO

OPERATORS = {}


def write(graph, program, precision, metadata, path, format_version=None):
    import torch

    exported = torch.export.export(graph, program.inputs)
    torch.export.save(exported, str(path), extra_files={METADATA: metadata})
    return Placement(delegated={"PyTorch": len(exported.graph.nodes)}, not_delegated=())


def requires(path, precision):
    return Requires()


class Loaded:
    def __init__(self, path):
        import torch

        self._step = torch.export.load(str(path)).module()

    def run(self, inputs):
        import torch

        return [output.detach().numpy() for output in self._step(*map(torch.from_numpy, inputs))]

    def close(self):
        del self._step


def load(path, exact):
    return Loaded(path)


PT2 = Target(
    info=INFO,
    writer=__name__,
    variants={"usual": PROFILE},
    platforms={},
    tools=("torch",),
    format_version=FormatVersion(option="archive", numbers=(1, 2), default=1, meaning="The version of the archive"),
    evaluator=Evaluator(load=f"{__name__}:load", name="PyTorch", display_name="PyTorch itself", note="it is a test"),
)
''',
}
LINES = {
    "runtime/targets.py": ("from clipstep.runtime.target_pt2 import PT2\n", "    PT2.name: PT2,\n"),
    "export/targets/__init__.py": ("from clipstep.export.targets.pt2 import PT2\n", "    PT2.name: PT2,\n"),
}
USE = """
import json, subprocess, sys
import torch
from torch import nn
from clipstep.export import export, verify
from clipstep.export.choices import TARGETS
from clipstep.runtime import ClipstepError, inspect

torch.manual_seed(0)
network = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
known = dict(frames=4, size=16, labels=("a", "b"), mean=(114.0,) * 3, std=(57.0,) * 3, fps=25.0)
manifest = export(network, "fourth.clipstep", targets=["pt2"], **known).manifest
try:
    export(network, "other.clipstep", targets=["pt3"], **known)
except ClipstepError as error:
    refused = str(error)
facts = inspect("fourth.clipstep/step.pt2")
print(json.dumps({
    "targets": TARGETS,
    "artifacts": [(a.target, a.file, a.parity.max_absolute_error, list(a.tool_versions)) for a in manifest.artifacts],
    "verified": [(a.file, a.runtime) for a in verify("fourth.clipstep").artifacts],
    "bundle": [a.target for a in inspect("fourth.clipstep").artifacts],
    "file": [facts.target, facts.interface.labels, sum(facts.operations.values()) > 2],
    "refused": refused,
}))
"""


def test_each_writer_is_in_the_table() -> None:
    assert {name: target.load_writer() for name, target in TARGETS.items()} == WRITERS


def test_both_tables_name_the_same_targets_in_the_same_order() -> None:
    assert list(TARGETS) == list(RUNTIME_TARGETS)
    assert all(target.info is RUNTIME_TARGETS[name] for name, target in TARGETS.items())


def test_each_target_has_an_engine_or_an_evaluator_to_verify_it() -> None:
    for name, target in TARGETS.items():
        assert (engine_of(name) is None) == (target.evaluator is not None)
        assert ("python" in target.info.destinations) == (engine_of(name) is not None)


@pytest.mark.parametrize("table", [PROFILERS, BARE_CALLS, GUESTS])
def test_what_measures_by_engine_knows_each_engine(table: dict[str, object]) -> None:
    assert list(table) == list(ENGINES)


def test_the_arm64_kit_has_each_engine() -> None:
    assert set(ENGINES) <= set(WHEELS)


def _texts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_other_file_names_a_target() -> None:
    """By a text that is its name, its suffix, or that of its file."""
    infos = RUNTIME_TARGETS.values()
    names = {text for info in infos for text in (info.name, info.suffix, info.suffix.removeprefix("."), f"step{info.suffix}")}
    files = [path for package in ("export", "runtime/python", "benchmarks", "training", "network") for path in (ROOT / package).rglob("*.py")]
    found = {(str(path.relative_to(ROOT)), text) for path in files for text in _texts(path) & names}
    assert {(file, text) for file, text in found if not file.startswith(OWN_FILES)} == ALLOWED.keys()


@pytest.fixture(scope="module")
def with_a_fourth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from: the packages with a made-up target more, by a file and its lines on each side."""
    folder = tmp_path_factory.mktemp("fourth")
    package = Path(shutil.copytree(ROOT / "runtime/command", folder / "clipstep"))
    for name, source in (("runtime", "runtime/python"), ("export", "export"), ("network", "network"), ("benchmarks", "benchmarks")):
        shutil.copytree(ROOT / source, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in FOURTH.items():
        (package / file).write_text(text)
    for file, (imported, entry) in LINES.items():
        text = (package / file).read_text()
        first, last = text.index("from clipstep."), text.index("}\n", text.index("\nTARGETS"))
        (package / file).write_text(text[:first] + imported + text[first:last] + entry + text[last:])
    return folder


def _python(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_fourth_target_is_exported_verified_and_inspected(with_a_fourth: Path) -> None:
    said = json.loads(_python(with_a_fourth, "-c", USE).splitlines()[-1])
    ((target, file, error, tools),) = said["artifacts"]
    assert (target, file, tools) == ("pt2", "step.pt2", ["torch"]) and error < 1e-5
    assert said["verified"] == [["step.pt2", "PyTorch itself"]]
    assert said["bundle"] == ["pt2"] and said["file"] == ["pt2", ["a", "b"], True]
    assert said["targets"] == ["onnx", "executorch", "coreml", "pt2"]
    assert said["refused"] == "unknown target; got pt3; expected some of onnx, executorch, coreml, pt2"


def test_a_fourth_target_is_in_the_options_and_their_help(with_a_fourth: Path) -> None:
    assert "a bundle or a lone .onnx, .pte, .mlpackage or .pt2:" in _python(with_a_fourth, "-m", "clipstep", "inspect", "--help")
    text = " ".join(_python(with_a_fourth, "-m", "clipstep", "export", "--help").split())
    assert "[default: onnx, executorch, coreml, pt2]" in text
    assert "--archive N The version of the archive, 1 to 2. [default: 1]" in text
