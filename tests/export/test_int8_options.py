"""How artifacts of int8 are asked for: which variant is written, layers in float32, calibration videos, and options that are refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipstep.export import export, variants
from clipstep.export.options import ExportOptions, layers_by_target
from clipstep.export.parity import check_artifact
from clipstep.export.result_lines import artifact_line
from clipstep.export.targets import TARGETS
from clipstep.export.targets.int8 import KEPT
from clipstep.export.variants import variants_of
from clipstep.runtime import Bundle, ClipstepError, ParityError
from clipstep.runtime.golden import GoldenErrors
from tests.export.test_int8 import LABELS, Small, Uneven, exported

Cli = Callable[..., tuple[int, str, str]]
WriteVideo = Callable[..., Path]


@pytest.mark.parametrize("beyond", [1, 2])
def test_another_variant_is_written_if_the_default_is_beyond_the_bound(beyond: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, lines = list[int](), list[str]()

    def check(*given: Any) -> GoldenErrors:
        calls.append(1)
        if len(calls) <= beyond:
            raise ParityError("step-int8.pte: too much") from ParityError("too much")
        return check_artifact(*given)

    monkeypatch.setattr(variants, "check_artifact", check)
    found = exported(tmp_path / "x.clipstep", precisions=["int8"], on_artifact=lambda written: lines.append(artifact_line(written)))
    names = [one.name for one in variants_of(TARGETS["executorch"], "auto", "any", "int8")]
    assert len(calls) == beyond + 1 and lines[0].endswith(f"; written as {names[beyond]}: {names[0]} is beyond the bound: too much")
    assert 0 < found.manifest.artifacts[0].parity.max_relative_error < 0.1


@pytest.mark.parametrize("target", ["executorch", "onnx"])
def test_a_layer_is_left_for_int8(target: str, tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=f"no layer of {target} would be left for int8; got --float32-layers 99; expected fewer than"):
        exported(tmp_path / "x.clipstep", targets=[target], precisions=["int8"], float32_layers=99)


def test_each_target_may_have_its_own_number_of_layers_in_float32(tmp_path: Path, clipstep: Cli, run_folder: Path) -> None:
    both = {"targets": ["onnx", "executorch"], "precisions": ["int8"]}
    of_one, of_all = (exported(tmp_path / f"{n}.clipstep", **both, float32_layers=given) for n, given in enumerate(({"onnx": 1}, 1)))
    of_one_onnx, of_one_executorch = (artifact.placement.int8_layers for artifact in of_one.manifest.artifacts)
    of_all_onnx, of_all_executorch = (artifact.placement.int8_layers for artifact in of_all.manifest.artifacts)
    assert of_one_onnx == of_all_onnx and of_one_executorch == of_all_executorch + 1
    out = tmp_path / "c.clipstep"
    given = ("--target", "onnx", "--target", "executorch", "--precision", "int8", "--float32-layers", "onnx=1", "--float32-layers", "executorch=2")
    assert clipstep("export", run_folder, *given, "--out", out)[0] == 0
    kept = [sum(one.count for one in a.placement.in_float32 if one.reason == KEPT) for a in Bundle.open(out).manifest.artifacts]
    assert kept[0] >= 1 and kept[1] >= 2


GIVEN: dict[tuple[str, ...], int | dict[str, int] | None] = {
    (): None,
    ("0",): 0,
    ("3",): 3,
    ("onnx=3",): {"onnx": 3},
    ("onnx=3", "executorch=0"): {"onnx": 3, "executorch": 0},
}


@pytest.mark.parametrize("given", GIVEN)
def test_numbers_of_layers_are_read(given: tuple[str, ...]) -> None:
    assert layers_by_target(given) == GIVEN[given]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("x",), "--float32-layers is a number of layers; got x; expected N, or TARGET=N"),
        (("-1",), "--float32-layers is a number of layers; got -1"),
        (("onnx=",), "--float32-layers is a number of layers; got onnx="),
        (("onnx=1.5",), "--float32-layers is a number of layers; got onnx=1.5"),
        (("3", "4"), "--float32-layers has several numbers for a target; got 3 4"),
        (("3", "onnx=4"), "--float32-layers has several numbers for a target; got 3 onnx=4"),
        (("onnx=3", "onnx=3"), "--float32-layers has several numbers for a target; got onnx=3 onnx=3"),
    ],
)
def test_numbers_of_layers_that_are_refused(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ClipstepError) as raised:
        layers_by_target(given)
    assert str(raised.value).startswith(message)


class Rooted(nn.Module):
    """Two operations that are in no module but the network itself, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.first, self.second = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5, 4))

    def forward(self, frames: Tensor) -> Tensor:
        x = self.inner(frames).relu().mean((2, 3, 4))
        x = torch.matmul(x, self.first).relu()
        return torch.matmul(x, self.second)


@pytest.mark.parametrize("stream", [None, 2])
def test_layers_have_the_names_and_lines_of_the_network(stream: int | None, tmp_path: Path) -> None:
    """Also those of a clip network that became steps."""
    artifact = exported(tmp_path / "x.clipstep", Rooted(), precisions=["int8"], stream=stream).manifest.artifacts[0]
    first = Rooted.forward.__code__.co_firstlineno + 2
    names = {one.layer for one in artifact.placement.sensitive_layers}
    assert {"inner", f"matmul at test_int8_options.py:{first + 1}"} <= names
    assert stream or f"matmul at test_int8_options.py:{first}" in names  # In a stream it is of a running mean, and in float32.
    assert not any("." in name.partition(" at ")[0] for name in names)  # No names of operators such as aten.add.Tensor.


def test_videos_in_a_folder_that_cannot_be_calibrated_on_are_skipped(
    tmp_path: Path, write_video: WriteVideo, clipstep: Cli, run_folder: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, frames in (("good.mp4", 8), ("short.mp4", 1)):
        shutil.move(write_video(frames), folder / name)
    (folder / "broken.mp4").write_bytes(b"no video")
    facts = {"frames": 4, "size": 16, "labels": LABELS, "mean": [110.0] * 3, "std": [58.0] * 3, "fps": 25, "targets": ["executorch"]}
    given: dict[str, Any] = {**facts, "precisions": ["int8"]}
    whole = export(Small().eval(), tmp_path / "x.clipstep", calibration=[folder], **given)
    assert set(whole.skipped_calibration) == {str(folder / "broken.mp4"), str(folder / "short.mp4")}
    (tmp_path / "b").mkdir()
    one = export(Small().eval(), tmp_path / "b" / "x.clipstep", calibration=[folder / "good.mp4"], **given)
    assert not one.skipped_calibration and one.manifest.artifacts[0].sha256 == whole.manifest.artifacts[0].sha256
    with pytest.raises(ClipstepError, match=r"short\.mp4: .*1 frame"):
        export(Small().eval(), tmp_path / "c.clipstep", calibration=[folder / "short.mp4"], **given)
    settings = ("--target", "executorch", "--precision", "int8", "--calibrate", folder, "--out", tmp_path / "d.clipstep")
    code, said, _ = clipstep("export", run_folder, *settings)
    assert code == 0 and f"skipped {folder / 'short.mp4'}, not calibrated on: " in said and f"skipped {folder / 'broken.mp4'}, " in said
    (folder / "good.mp4").unlink()
    code, _, error = clipstep("export", run_folder, *settings, "--force")
    assert code == 2 and error.startswith(f"error: {folder}: no video in it can be calibrated on; got {folder / 'broken.mp4'}: ")


def test_an_artifact_that_is_too_far_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"step-int8\.pte: .* is off at step \d+; got an error of .*; 256 numbers are too few"):
        exported(tmp_path / "x.clipstep", Uneven(), precisions=["int8"])
    assert not (tmp_path / "x.clipstep").exists()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no int8": ({"calibration": ("x.mp4",)}, "--calibrate is for artifacts that compute in int8; got none of them; add --precision"),
    "layers without int8": (
        {"float32_layers": 2},
        "--float32-layers is for artifacts that compute in int8; got none of them; add --precision executorch=int8",
    ),
    "a negative number of layers": ({"precisions": ("executorch=int8",), "float32_layers": -1}, "--float32-layers is a number of layers; got -1"),
    "a percentile without int8": (
        {"calibration_percentile": 99.9},
        "--calibration-percentile is for artifacts that compute in int8; got none of them; add --precision executorch=int8",
    ),
    "a percentile of the lower half": (
        {"precisions": ("executorch=int8",), "calibration_percentile": 50},
        "--calibration-percentile is the percentile at which ranges end; got 50; expected above 50, up to 100",
    ),
    "layers of another target": (
        {"targets": ("onnx",), "precisions": ("int8",), "float32_layers": {"executorch": 1}},
        "--float32-layers is for a target that is not exported; got executorch=1; expected onnx",
    ),
    "layers of a target without int8": (
        {"targets": ("onnx", "executorch"), "precisions": ("onnx=int8",), "float32_layers": {"executorch": 1}},
        "--float32-layers is for artifacts that compute in int8; got executorch in float32; add --precision executorch=int8, or",
    ),
    "half a layer": ({"precisions": ("executorch=int8",), "float32_layers": {"executorch": 0.5}}, "--float32-layers is a number of layers; got 0.5"),
    "layers in words": ({"precisions": ("executorch=int8",), "float32_layers": "two"}, "--float32-layers is a number of layers; got two"),
    "no percentile": (
        {"precisions": ("executorch=int8",), "calibration_percentile": None},
        "--calibration-percentile is the percentile at which ranges end; got None; expected above 50",
    ),
    "no form": ({"form": None}, "unknown form; got None; expected one of auto"),
    "equalize in words": ({"precisions": ("executorch=int8",), "equalize": "yes"}, "equalize is True or False; got 'yes'"),
    "correct_biases as a number": ({"precisions": ("executorch=int8",), "correct_biases": 1}, "correct_biases is True or False; got 1"),
    "keep_going as nothing": ({"keep_going": None}, "keep_going is True or False; got None"),
    "a number of videos": ({"precisions": ("executorch=int8",), "calibration": 5}, "calibration is a list of videos; got 5"),
    "videos of frames": ({"precisions": ("executorch=int8",), "calibration": [None]}, r"calibration is a list of videos; got \[None\]"),
    "precisions that are no names": ({"precisions": (8,)}, r"precisions are a list of names; got \(8,\)"),
    "targets that are no names": ({"targets": (None,)}, r"targets are a list of names; got \(None,\)"),
    "a single path": ({"precisions": ("executorch=int8",), "calibration": "x.mp4"}, "calibration is a list of videos; got 'x.mp4'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_are_refused(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(ClipstepError, match=message):
        ExportOptions(**given)
