"""The public names of each package exist, are visible to type checkers, and are all used in user.py, which type checkers check."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "network", "training", "export", "benchmarks")


def _imported(tree: ast.Module, module: str) -> set[str]:
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == module for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_there_and_in_the_users_file(package: str) -> None:
    module = importlib.import_module(f"clipstep.{package}")
    for name in module.__all__:
        assert getattr(module, name) is not None and not isinstance(getattr(module, name), type(sys)), name
    user = ast.parse((Path(__file__).parent / "user.py").read_text())
    assert _imported(user, f"clipstep.{package}") == set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_its_types_and_its_link_for_type_checkers(package: str) -> None:
    folder = Path(str(importlib.import_module(f"clipstep.{package}").__file__)).parent
    assert (folder / "py.typed").is_file()
    assert (ROOT / "typings/clipstep" / package).resolve() == folder.resolve()


def test_public_names_stay_functions_when_commands_are_imported() -> None:
    """A module of the same name would take a function's place as soon as something imports it."""
    code = (
        "import clipstep.export.cli, clipstep.export.pipeline, clipstep.benchmarks.bench_command, clipstep.runtime.inspection\n"
        "from clipstep import benchmarks, export, runtime\n"
        "print(callable(export.export), callable(export.verify), callable(benchmarks.bench), callable(runtime.inspect))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True True True True\n", done.stderr


def test_importing_the_packages_loads_no_torch() -> None:
    code = f"import sys; [__import__(f'clipstep.{{name}}') for name in {PACKAGES}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
