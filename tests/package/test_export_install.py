"""``clipstep[export]`` in an empty environment has nothing of training, and exports and verifies a module: ``make test-export``."""

import shutil
import subprocess
import sys
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
export(module, "small.clipstep", frames=3, size=16, labels=("a", "b"), mean=(110.0,) * 3, std=(60.0,) * 3, fps=25)
print([name for name in {LIBRARIES!r} if importlib.util.find_spec(name)], len(verify("small.clipstep", module=module).artifacts))
"""

pytestmark = pytest.mark.installs


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Path]:
    """The interpreter of an environment with clipstep[export] and nothing else, which is removed afterwards: pytest keeps its folders."""
    environment = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    try:
        pip = [environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, f"{ROOT}[export]"], check=True)
        yield environment / "bin/python"
    finally:
        shutil.rmtree(environment)


def test_the_export_extra_alone_exports_a_module(python: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([python, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[] 4"], done.stdout + done.stderr
