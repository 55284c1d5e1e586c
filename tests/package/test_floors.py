"""The lowest versions that pyproject.toml allows, in an empty environment, run a bundle that was exported today and show a video as it is.

``make test-floors``: it downloads those versions, so that it is not among the everyday tests.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.network.videos import read_subclips
from clipstep.runtime.video import read_frames
from clipstep.training.run import Run, RunInfo

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "training/demo/fight/videos/Fight/v_Fight_g02_c01.mp4"
COLOURS = ((230, 20, 40), (30, 200, 60), (20, 60, 210), (240, 220, 30))
OPSETS = (13, 17, 20)

pytestmark = pytest.mark.floors

CHECK = """
import json, sys
import numpy as np
from importlib.metadata import version
from clipstep.runtime import Bundle, GoldenSteps, StepModel, check_golden, read_frames
said = {"versions": {name: version(name) for name in json.loads(sys.argv[2])}, "errors": {}}
for path in json.loads(sys.argv[1]):
    with StepModel.load(path) as model:
        said["errors"][path] = check_golden(model, GoldenSteps.of(Bundle.open(path)), "float32").relative
np.savez("frames.npz", clip=np.stack(list(read_frames(sys.argv[3]))), tagged=next(read_frames(sys.argv[4])))
print(json.dumps(said))
"""


def floors() -> dict[str, str]:
    """The base dependencies' lowest versions, as pyproject.toml states them."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {name: lowest.split(",")[0] for name, lowest in (item.split(">=") for item in stated)}


def _short(version: str) -> str:
    return re.sub(r"(\.0)+$", "", version)


def _lowest_python() -> str:
    if sys.version_info[:2] == (3, 11):
        return sys.executable
    found = shutil.which("python3.11")
    assert found, "the lowest versions have wheels for Python 3.11, the lowest that pyproject.toml allows; install it"
    return found


def _run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with clipstep and the lowest versions of what it depends on."""
    folder = tmp_path_factory.mktemp("floors")
    source = folder / "source"
    source.mkdir()
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    for name in sorted({"pyproject.toml", "README.md", "LICENSE", *(Path(folder).parts[0] for folder in folders)}):
        (source / name).symlink_to(ROOT / name)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", cwd=source)
    (wheel,) = (folder / "dist").glob("clipstep-*.whl")
    _run(_lowest_python(), "-m", "venv", folder / "empty", cwd=folder)
    pinned = [f"{name}=={version}" for name, version in floors().items()]
    _run(folder / "empty/bin/python", "-m", "pip", "install", "--quiet", wheel, *pinned, cwd=folder)
    return folder / "empty/bin"


class _Averages(nn.Module):
    """A network that exports in a second; the oldest operator sets write its mean and its activation otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv3d(3, 8, (2, 3, 3)), nn.Linear(8, 2)

    def initial_states(self) -> dict[str, torch.Tensor]:
        return {"past": torch.zeros(1, 8)}

    def forward(self, frames: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = nn.functional.gelu(self.convolution(frames)).mean((2, 3, 4))
        return self.linear(seen - past), past * 0.5 + seen


def _averages() -> Run:
    torch.manual_seed(3)
    info = RunInfo("averages", {}, ("one", "other"), (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    return Run(_Averages().eval(), info, read_subclips(CLIP, 3, 16)[:5])


def _bt709(red: int, green: int, blue: int) -> tuple[int, int, int]:
    """Y, Cb, Cr of 16..235 and 16..240, by ITU-R BT.709-6, sections 3.2 to 3.4."""
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return round(16 + luma * 219 / 255), round(128 + (blue - luma) / 1.8556 * 224 / 255), round(128 + (red - luma) / 1.5748 * 224 / 255)


def _rotated_and_tagged(path: Path) -> np.ndarray:
    """Writes four quarters of ``COLOURS`` in BT.709, stored a quarter turn to the left of how they are to be shown, and gives what is to
    be shown, ``(64, 32, 3)``."""
    stored = np.zeros((32, 64, 3), np.uint8)
    for colour, (top, left) in zip(COLOURS, ((0, 0), (0, 32), (16, 0), (16, 32)), strict=True):
        stored[top : top + 16, left : left + 32] = colour
    planes = np.array([[_bt709(*(int(value) for value in pixel)) for pixel in row] for row in stored], np.uint8)
    luma, chroma = planes[..., 0], planes[::2, ::2, 1:]
    frame = av.VideoFrame.from_ndarray(
        np.concatenate([luma.ravel(), chroma[..., 0].ravel(), chroma[..., 1].ravel()]).reshape(48, 64), format="yuv420p"
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16..235
        frame.colorspace, frame.color_range = 1, 1
        for _ in range(4):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    for offset, value in zip((0, 4, 12, 16), (0, 1, -1, 0), strict=True):  # What phones write: a quarter turn to the right.
        data[matrix + offset : matrix + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return np.rot90(stored, -1)


def test_the_lowest_versions_run_bundles_and_decode_videos(environment: Path, run: Run, tmp_path: Path) -> None:
    bundles = []
    for opset in OPSETS:
        bundles.append(str(tmp_path / f"opset{opset}.clipstep"))
        exported = run if opset == OPSETS[-1] else _averages()
        export_network(exported.spec("small"), Path(bundles[-1]), ExportOptions(("onnx",), format_versions={"opset": opset}))
    shown = _rotated_and_tagged(tmp_path / "tagged.mp4")
    arguments = (json.dumps(bundles), json.dumps(list(floors())), CLIP, tmp_path / "tagged.mp4")
    said = json.loads(_run(environment / "python", "-c", CHECK, *arguments, cwd=tmp_path))
    assert {name: _short(version) for name, version in said["versions"].items()} == {name: _short(version) for name, version in floors().items()}
    assert max(said["errors"].values()) < 1e-5 and len(said["errors"]) == len(OPSETS)
    frames = np.load(tmp_path / "frames.npz")
    np.testing.assert_array_equal(frames["clip"], np.stack(list(read_frames(CLIP))))
    assert np.abs(frames["tagged"].astype(int) - shown).max() <= 3


def test_the_lowest_versions_run_the_commands_of_a_base_install(environment: Path, run: Run, tmp_path: Path) -> None:
    export_network(run.spec("small"), tmp_path / "small.clipstep", ExportOptions(("onnx",)))
    lines = _run(environment / "clipstep", "run", tmp_path / "small.clipstep", CLIP, "--top", "1", cwd=tmp_path).splitlines()
    assert len(lines) >= 58 // 4 and "onnxruntime" in lines[0]
    assert "needs opset 20, IR version 9, onnxruntime >=1.17" in _run(environment / "clipstep", "inspect", tmp_path / "small.clipstep", cwd=tmp_path)
    assert "train" in _run(environment / "clipstep", "--help", cwd=tmp_path)
