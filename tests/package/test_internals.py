"""What is not public of PyTorch, ExecuTorch and Core ML Tools is used in one module for each, which refuses other versions in a sentence."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest

from clipstep.export.compat.torch_internals import TORCH
from clipstep.runtime.artifact_info import read_artifact
from clipstep.runtime.coremltools_files import COREMLTOOLS
from clipstep.runtime.engines import load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.executorch_internals import EXECUTORCH
from clipstep.runtime.supported import SupportedRange

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INTERNALS = {
    "export/compat/coremltools_internals.py",
    "export/compat/executorch_internals.py",
    "export/compat/torch_internals.py",
    "runtime/python/coremltools_files.py",
    "runtime/python/executorch_internals.py",
}
"""The modules that may use what is not public."""
LIBRARIES = ("coremltools", "executorch", "torch")
PUBLIC = {
    "coremltools",
    "coremltools.converters.mil",  # Builder, by which the guide of Core ML Tools writes programs.
    "coremltools.models",
    "coremltools.models.utils",
    "coremltools.utils",
    "executorch.devtools",
    "torch",
    "torch.autograd",
    "torch.distributed",
    "torch.export",
    "torch.func",
    "torch.fx",
    "torch.jit",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.parameter",
    "torch.nn.utils",
    "torch.onnx",
    "torch.ops",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torch.optim.swa_utils",
    "torch.overrides",
    "torch.random",
    "torch.serialization",
    "torch.utils.data",
    "torch.utils.flop_counter",
}
"""The modules that the libraries document. A new one is added here after a look into its documentation."""
NOT_INTERNAL = {"sys._getframe", "os._exit", "libc._exit", "_tools"}
"""What is public in spite of its name: Python documents the first two, and `_tools` is MNN's converter."""


def _name(node: ast.expr, modules: dict[str, str]) -> str:
    """`torch.fx.Node` of such an expression, by what its first name was imported as; of others the part that is known."""
    if isinstance(node, ast.Name):
        return modules.get(node.id, node.id)
    return f"{_name(node.value, modules)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _is_module(name: str) -> bool:
    """Whether `torch.fx` or the like is a module: tried on the installed library."""
    parent, _, last = name.rpartition(".")
    if not parent:
        return True
    try:
        importlib.import_module(name)
    except ImportError:
        return isinstance(getattr(sys.modules.get(parent), last, None), ModuleType)
    return True


def _not_public(name: str) -> bool:
    """Whether a dotted name of a library is, or lies in, something that is not public."""
    parts = name.split(".")
    if parts[0] not in LIBRARIES or name.startswith("torch.ops."):  # Operators have names of their own: aten._unsafe_view.
        return False
    prefixes = [".".join(parts[: n + 1]) for n in range(len(parts))]
    module = list(takewhile(_is_module, prefixes))[-1]
    return any(map(_is_private, parts)) or not any(public == module or public.startswith(f"{module}.") for public in PUBLIC)


def _is_internal_import(name: str) -> bool:
    """The same of an import, of any library."""
    library, *_ = parts = name.split(".")
    return _not_public(name) or (library != "clipstep" and name not in NOT_INTERNAL and any(map(_is_private, parts)))


def _own_names(tree: ast.Module) -> set[str]:
    """The private names that a file gives itself: functions, classes, attributes and variables."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def uses_of_internals(source: str) -> Iterator[str]:
    """The uses of what is not public in a file's text: imports, attributes, arguments, and names in strings."""
    tree = ast.parse(source)
    own, modules = _own_names(tree), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(
                {alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else alias.name.partition(".")[0] for alias in node.names}
            )
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Attribute):
            modules[node.targets[0].id] = _name(node.value, modules)  # aten = torch.ops.aten
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_internal_import(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (name for alias in node.names if _is_internal_import(name := f"{node.module}.{alias.name}"))
        elif isinstance(node, ast.Attribute):
            name = _name(node, modules)
            private = _is_private(node.attr) and node.attr not in own and name not in NOT_INTERNAL and not name.startswith("torch.ops.")
            if private or _not_public(name):
                yield name
        elif isinstance(node, ast.keyword) and node.arg and _is_private(node.arg):
            yield f"{node.arg}="
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+(\.\w+)+", node.value) and _not_public(node.value):
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr"):
            yield from (str(value.value) for value in node.args if isinstance(value, ast.Constant) and _is_private(str(value.value)))


def _files() -> list[str]:
    folders = [folder for name, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()]
    return sorted(path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_only_one_module_for_each_library_uses_what_is_not_public() -> None:
    found = {file: sorted(set(uses_of_internals((ROOT / file).read_text()))) for file in _files()}
    used = {file: names for file, names in found.items() if names}
    assert used.keys() == INTERNALS, {file: names for file, names in used.items() if file not in INTERNALS}


@pytest.mark.parametrize(
    "planted",
    [
        "import torch._dynamo",
        "from numpy._core import multiarray",
        "from torch._guards import tracing",
        "from torch.utils import _pytree as pytree",
        "from torch.fx.experimental.proxy_tensor import make_fx",
        "from torch.fx import experimental",
        "import torch\ntorch.fx.experimental.proxy_tensor.make_fx",
        "import torch\ntorch._C._get_tracing_state()",
        "import torch\ntorch.utils._pytree.tree_leaves([])",
        "def names(operator):\n    return operator._schema.arguments",
        "schedule._last_lr = []",
        "getattr(portable_lib, '_load_for_executorch')",
        "from executorch.exir.schema import Program",
        "from executorch.exir._serialize._program import deserialize_pte_binary",
        "from executorch.extension.pybindings import portable_lib",
        "import importlib\nimportlib.import_module('executorch.extension.pybindings.portable_lib')",
        "EdgeCompileConfig(_skip_dim_order=True)",
        "from coremltools import proto",
        "import coremltools as ct\nct.proto.MIL_pb2",
        "import coremltools as ct\nct.converters.mil.mil.Program()",
        "from coremltools.libmilstoragepython import _BlobStorageReader",
    ],
)
def test_a_planted_use_is_found(planted: str) -> None:
    assert list(uses_of_internals(planted))


def test_what_is_public_or_our_own_is_no_such_use() -> None:
    source = """
import coremltools as ct
import torch
from torch import fx, nn
from torch.utils.data import DataLoader
aten = torch.ops.aten

class A(fx.Interpreter):
    def _b(self):
        return self._b, aten._unsafe_view.default, torch.ops.aten._to_copy.default, torch.export.export, ct.target.iOS17, ct.models.MLModel
"""
    assert list(uses_of_internals(source)) == []


def test_pip_is_told_the_same_ranges() -> None:
    stated = dict(re.fullmatch(r"([\w-]+)(.*)", item).groups() for item in PROJECT["project"]["optional-dependencies"]["export"])  # type: ignore[union-attr]
    for supported in (TORCH, EXECUTORCH, COREMLTOOLS):
        assert supported.requirement == f"{supported.library}{stated[supported.library]}"
        supported.check()
    assert all("<" in versions for versions in stated.values()), "each minor version of what an export needs is tested before it is allowed"


@pytest.mark.parametrize(
    ("installed", "fits"),
    [("2.13", True), ("2.13.0", True), ("2.13.1+cu130", True), ("2.12.9", False), ("2.14.0", False), ("2.14.0.dev1+cpu", False), ("3.0", False)],
)
def test_a_version_is_in_the_range_or_refused(installed: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SupportedRange, "installed", lambda self: installed)
    if fits:
        return TORCH.check()
    with pytest.raises(ClipstepError, match=re.escape(f"got {installed}; expected torch>=2.13,<2.14; pip install 'torch>=2.13,<2.14'")):
        TORCH.check()


NETWORK = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))
"""


def _export(prepared: str, folder: Path, target: str) -> str:
    """The command line exports a small network in a process where `prepared` ran before; what it writes to standard error."""
    (folder / "tiny.py").write_text(NETWORK)
    (folder / "labels.txt").write_text("a\nb\n")
    code = f"import sys\n{prepared}\nfrom clipstep.runtime.command_line.cli import main; main()"
    network = ("--model", "tiny:network", "--random-weights", "--labels", "labels.txt", "--frames", "4", "--size", "16")
    command = [sys.executable, "-c", code, "export", *network, "--target", target, "--out", "a.clipstep"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stdout) == (2, ""), done
    return "".join(line for line in done.stderr.splitlines(keepends=True) if line.startswith(("error", "Traceback")))


@pytest.mark.parametrize(
    ("library", "module", "version", "requirement", "target"),
    [
        ("torch", "torch", "2.14.0+cpu", "torch>=2.13,<2.14", "onnx"),
        ("executorch", "executorch.version", "1.5.0", "executorch>=1.5.1,<1.6", "executorch"),
        ("coremltools", "coremltools", "9.1", "coremltools>=9.0,<9.1", "coreml"),
    ],
)
def test_export_refuses_another_version(library: str, module: str, version: str, requirement: str, target: str, tmp_path: Path) -> None:
    prepared = f"import {module} as library; library.__version__ = {version!r}"
    assert _export(prepared, tmp_path, target) == (
        f"error: this version of {library} is not supported, because clipstep uses parts of {library} that are not public; "
        f"got {version}; expected {requirement}; pip install '{requirement}'\n"
    )


def test_export_says_which_name_is_gone(tmp_path: Path) -> None:
    said = _export("import torch._guards; del torch._guards.TracingContext", tmp_path, "onnx")
    assert said.startswith("error: torch 2.13") and "lacks what clipstep uses of it; got cannot import name 'TracingContext'" in said


def test_a_name_that_is_gone_from_a_module_of_many_names_is_a_sentence() -> None:
    with pytest.raises(ClipstepError, match="lacks what clipstep uses of it; got module 'schema' has no attribute 'XNNConv9d'"):
        _ = EXECUTORCH.guarded(ModuleType("schema")).XNNConv9d


def test_the_runtime_refuses_another_executorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executorch.version.__version__", "1.6.0")
    (path := tmp_path / "step.pte").write_bytes(b"not looked at")
    for use in (lambda: read_artifact(path), lambda: load_engine("executorch", path, 1)):
        with pytest.raises(ClipstepError, match=re.escape("got 1.6.0; expected executorch>=1.5.1,<1.6; pip install")):
            use()
