"""``clipstep bench-scaling``: a row for each shape, with its arithmetic; what cannot be measured is refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.image import imread

from clipstep.network.count import clip_macs
from clipstep.training.models import build

pytestmark = pytest.mark.long
Cli = Callable[..., tuple[int, str, str]]
DATA = Path(__file__).parents[2] / "training/demo/fight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scaling")


def test_the_arithmetic_and_the_time_of_each_shape(folder: Path, clipstep: Cli) -> None:
    picture = folder / "scaling.png"
    shapes = ("--frames", 4, "--frames", 8, "--size", 64, "--streams", 1, "--streams", 3)
    code, said, _ = clipstep(
        "bench-scaling", DATA, "--out", folder, "--architecture", "shufflenet3d_0.5x", *shapes, "--rounds", 1, "--picture", picture
    )
    assert code == 0
    rows = [re.findall(r"[\d.,]+", line) for line in said.splitlines() if re.fullmatch(r"[ \d.,]+", line)]
    network = build("shufflenet3d_0.5x", {"classes": 2, "frames": 8, "size": 64})
    for row, frames in zip(rows, (4, 8), strict=False):
        assert row[:3] == [str(frames), "64", f"{clip_macs(network, 3, frames, 64) / 1e6:.0f}"]
        assert all(float(number) > 0 for number in row[3:])
    assert rows[0][4] == rows[0][6] == "1.00"  # The last but one T is what others are compared with.
    assert [row[0] for row in rows[2:]] == ["1", "3"]
    ratios = re.findall(r"StepModel.step takes ([\d.]+) times as long as (\w+)'s own call", said)
    assert [engine for _, engine in ratios] == ["onnxruntime", "executorch"] and all(float(ratio) > 0 for ratio, _ in ratios)
    assert (imread(picture)[..., :3].std((0, 1)) > 0.02).all()


def test_another_network_in_its_place_is_refused(folder: Path, clipstep: Cli) -> None:
    shutil.copytree(folder / "shufflenet3d_0.5x-4x64.clipstep", folder / "shufflenet3d_0.5x-2x64.clipstep")
    code, _, error = clipstep("bench-scaling", DATA, "--out", folder, "--architecture", "shufflenet3d_0.5x", "--frames", 2, "--size", 64)
    assert code == 2
    assert "shufflenet3d_0.5x-2x64.clipstep: is of another network or size; choose another --out" in error
