"""``clipstep[export]`` in an empty environment has nothing of training, and exports and verifies a module: ``make test-export``."""

import subprocess
import sys
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


def test_the_export_extra_alone_exports_a_module(tmp_path: Path) -> None:
    python = tmp_path / "empty/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", f"{ROOT}[export]"], check=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([python, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[] 4"], done.stdout + done.stderr
