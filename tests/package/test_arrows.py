"""The packages import each other only as CONTRIBUTING.md allows: in one direction, without a cycle."""

import ast
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ARROWS = {
    "runtime": set(),
    "network": {"runtime"},
    "training": {"network", "runtime"},
    "export": {"network", "runtime"},
    "benchmarks": {"export", "training", "network", "runtime"},
}
"""What each package may import."""
WHEN_CALLED = {
    ("export/evaluating.py", "clipstep.training.artifact_accuracy"): "artifacts are evaluated on labelled videos",
    ("export/reference.py", "clipstep.training.run"): "a run is opened",
    ("export/tuning.py", "clipstep.benchmarks.tune"): "the ways to write an artifact are measured",
}
"""Imports against the arrows, inside functions that are called only for that purpose."""
TRAINING_LIBRARIES = {"captum", "cv2", "lightning", "matplotlib", "threadpoolctl", "torchmetrics"}
FLOW = ("network/flow.py", "cv2")
"""Optical flow is imported only where it is asked for."""


class Import(NamedTuple):
    file: str
    module: str
    at_import: bool
    """Whether it happens when the file is imported."""


def _modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"clipstep.{alias.name}" for alias in node.names) if node.module == "clipstep" else (node.module,)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
        yield from (value.value for value in node.args if isinstance(value, ast.Constant) and isinstance(value.value, str))


def _imports(node: ast.AST, file: str, at_import: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for module in _modules(child):
            yield Import(file, module, at_import)
        yield from _imports(child, file, at_import and not isinstance(child, ast.FunctionDef | ast.Lambda))


def imports_of(package: str) -> list[Import]:
    folder = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"][f"clipstep.{package}"]
    files = sorted((ROOT / folder).rglob("*.py"))
    return [found for path in files for found in _imports(ast.parse(path.read_text()), path.relative_to(ROOT).as_posix())]


def _target(module: str) -> str:
    return module.split(".")[1] if module.startswith("clipstep.") else ""


def test_packages_import_only_what_the_arrows_allow() -> None:
    against = [
        found for package, allowed in ARROWS.items() for found in imports_of(package) if _target(found.module) in ARROWS.keys() - allowed - {package}
    ]
    assert {(found.file, found.module) for found in against} == WHEN_CALLED.keys()
    assert not [found for found in against if found.at_import]


def test_the_arrows_have_no_cycle_and_cover_every_package() -> None:
    assert next(iter(TopologicalSorter(ARROWS).static_order())) == "runtime"
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    assert {name.removeprefix("clipstep.") for name in listed if "." in name} == ARROWS.keys()


def test_importing_the_runtime_never_imports_torch() -> None:
    found = [item for item in imports_of("runtime") if item.module.split(".")[0] == "torch"]
    assert {(item.file, item.at_import) for item in found} == {("runtime/python/engine_executorch.py", False)}  # It takes torch's tensors.


def test_an_export_needs_none_of_the_libraries_of_training() -> None:
    found = {(found.file, found.module.split(".")[0]) for package in ("network", "export") for found in imports_of(package)}
    assert {(file, library) for file, library in found if library in TRAINING_LIBRARIES} == {FLOW}
