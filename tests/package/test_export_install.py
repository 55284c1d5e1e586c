"""`clipstep[export]` in an empty environment has nothing of training, and exports and verifies a module, with the versions that this project
is tested with and with the lowest that pyproject.toml allows: `make test-export`."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = ("captum", "cv2", "lightning", "matplotlib", "torchmetrics")
SCRIPT = f"""
import importlib.util
import torch
from torch import nn
from clipstep.export import export, verify

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv3d(3, 8, (2, 3, 3)), nn.Linear(8, 2)

    def forward(self, frames):
        return self.linear(self.convolution(frames).relu().mean((2, 3, 4)))

module = Small().eval()
settings = dict(frames=3, size=16, labels=("a", "b"), mean=(110.0,) * 3, std=(60.0,) * 3, fps=25, force=True)
export(module, "small.clipstep", **settings)
export(module, "3d.clipstep", **settings, targets=("onnx",), form="3d")  # By torch.onnx, which calls onnxscript.
verified = [len(verify(name, module=module).artifacts) for name in ("small.clipstep", "3d.clipstep")]
print([name for name in {LIBRARIES!r} if importlib.util.find_spec(name)], verified)
"""

pytestmark = pytest.mark.installs


def _pip(python: Path, *requirements: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *requirements], check=True)


def _lowest() -> list[str]:
    """What clipstep[export] brings, each pinned to the lowest version allowed."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["export"]
    return [item.partition(",")[0].replace(">=", "==") for item in stated]


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Path]:
    """The interpreter of an environment with clipstep[export] and nothing else. It is removed afterwards, because pytest keeps its folders."""
    environment = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    try:
        _pip(environment / "bin/python", "--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[export]")
        yield environment / "bin/python"
    finally:
        shutil.rmtree(environment)


def test_the_export_extra_alone_exports_a_module(python: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for requirements in ([], _lowest()):
        if requirements:
            _pip(python, *requirements)
        done = subprocess.run([python, "script.py"], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == ["[] [4, 1]"], (requirements, done.stdout, done.stderr)
