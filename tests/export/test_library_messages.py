"""Standard error holds clipstep's lines and the user's warnings, and no messages of torch or of a converter."""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]
NETWORKS = """
import warnings
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2)
    def forward(self, frames):
        return self.head(self.conv(frames).relu().mean((2, 3, 4)))

class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.compile(Plain().eval(), backend="eager")
    def forward(self, frames):
        return self.inner(frames)

class Old(Plain):
    def forward(self, frames):
        return super().forward(frames) + torch.ones(2, 3).T.mean() + torch.ones(3).T.mean()

class Warns(Plain):
    def forward(self, frames):
        warnings.warn("the frames are large")
        return super().forward(frames)
"""
SHAPE = ("--labels", "labels.txt", "--frames", "4", "--size", "16")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with these networks and their classes, in which warnings go to standard error as in a program of its own."""
    (tmp_path / "some.py").write_text(NETWORKS)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "some", raising=False)

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        sys.stderr.write(f"{category.__name__}: {message}\n")

    monkeypatch.setattr(warnings, "showwarning", show)
    monkeypatch.setattr(warnings, "filters", [("always", None, Warning, None, 0)])
    return tmp_path


@pytest.mark.parametrize("network", ["Plain", "Compiled", "Old"])
def test_every_command_prints_nothing_to_standard_error(network: str, folder: Path, clip_at_25: Path, clipstep: Cli) -> None:
    """torch warns about each of these networks somewhere, about the plain one in an export as a stream; converters warn about any."""
    options = ("--stream", "2") if network == "Plain" else ("--target", "onnx")
    model = ("--model", f"some:{network}")
    for line in (
        ("export", *model, *SHAPE, *options, "--out", "a.clipstep"),
        ("verify", "a.clipstep", *model),
        ("inspect", "a.clipstep"),
        ("run", "a.clipstep", str(clip_at_25)),
        ("pack", "a.clipstep", "--for", "python", "--golden", "synthetic", *model, "--out", "a.clipstep.zip"),
        ("verify", "a.clipstep.zip"),
    ):
        code, _, err = clipstep(*line)
        assert (code, err) == (0, ""), line


def test_a_warning_of_the_network_is_shown_and_the_filters_stay(folder: Path, clipstep: Cli) -> None:
    before = (warnings.showwarning, list(warnings.filters))
    code, _, err = clipstep("export", "--model", "some:Warns", *SHAPE, "--target", "onnx", "--out", "a.clipstep")
    assert code == 0 and set(err.splitlines()) == {"UserWarning: the frames are large"}
    assert (warnings.showwarning, list(warnings.filters)) == before


@pytest.mark.parametrize("model", [("--model", "some:Plain"), ()])
def test_messages_at_import_are_not_shown(model: tuple[str, ...], folder: Path, clipstep: Cli) -> None:
    """In a process of its own, which imports torch, the converters and the engines anew."""
    assert clipstep("export", "--model", "some:Plain", *SHAPE, "--target", "onnx", "--target", "executorch", "--out", "a.clipstep")[0] == 0
    command = ("pack", "a.clipstep", "--for", "python", "--golden", "synthetic", *model, "--out", "a.clipstep.zip")
    done = subprocess.run([sys.executable, "-m", "clipstep", *command], capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("outputs by the eager network" if model else "outputs by step.onnx in onnxruntime", done.stdout)
