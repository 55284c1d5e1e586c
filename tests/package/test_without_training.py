"""What an export needs: with every library of training out of reach, a module in memory, a factory and a run are exported and verified.

``make test-export`` does the same with a real installation of ``clipstep[export]`` into an empty environment.
"""

import subprocess
import sys
from pathlib import Path

import pytest

REFUSED = (
    "captum",
    "cv2",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "matplotlib",
    "pytorch_lightning",
    "threadpoolctl",
    "torchmetrics",
)

NETWORK = """
import torch
from torch import nn

class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv3d(3, 8, (2, 3, 3)), nn.Linear(8, 2)

    def initial_states(self):
        return {"past": torch.zeros(1, 8)}

    def forward(self, frames, past):
        seen = self.convolution(frames).relu().mean((2, 3, 4))
        return self.linear(seen - past), past * 0.5 + seen
"""

EXPORT = f"""
import importlib.abc, pathlib, sys

REFUSED = {REFUSED!r}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, "")
import torch
from clipstep.export import export, verify
from clipstep.runtime.command_line.cli import main
from network import Remembers

torch.manual_seed(1)
module = Remembers().eval()
result = export(module, "memory.clipstep", frames=3, size=16, labels=("one", "other"), mean=(104.0, 101.0, 97.0), std=(58.0, 57.0, 59.0), fps=25)
checked = verify("memory.clipstep", module=module)
print(sorted(item.file for item in checked.artifacts), max(item.max_relative_error for item in checked.artifacts if "16" not in item.file) < 1e-5)
assert not any(name.startswith("clipstep.training") for name in sys.modules)
torch.save(module.state_dict(), "weights.pt")
pathlib.Path("classes.txt").write_text("one\\nother\\n")
for command in (
    "export --model network:Remembers --weights weights.pt --labels classes.txt --frames 3 --size 16 --target onnx --out factory.clipstep",
    "verify factory.clipstep --model network:Remembers --weights weights.pt",
    f"export {{sys.argv[1]}} --target onnx --out run.clipstep",
    f"verify run.clipstep --run {{sys.argv[1]}}",
):
    sys.argv = ["clipstep", *command.split()]
    main()
assert not [name for name in REFUSED if name in sys.modules]
"""


@pytest.mark.long
def test_an_export_works_with_the_libraries_of_training_out_of_reach(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "script.py").write_text(EXPORT)
    (tmp_path / "small").symlink_to(run_folder)
    done = subprocess.run([sys.executable, "script.py", "small"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "['step-float16.mlpackage', 'step-float32.mlpackage', 'step.onnx', 'step.pte'] True"
    assert done.stdout.count("verified over 16 steps") == 2 and done.stdout.count("eager network of") == 2


def test_optical_flow_without_opencv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from clipstep.network.videos import as_channels
    from clipstep.runtime import ClipstepError

    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "clipstep.network.flow", raising=False)
    with pytest.raises(ClipstepError, match=r"optical flow needs OpenCV, which is not installed; pip install .*\[training\]"):
        as_channels(torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8), 2)
