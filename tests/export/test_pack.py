"""`clipstep pack`, and every command on what it writes."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipstep.runtime.bundle import Bundle
from clipstep.runtime.golden import GoldenSteps
from clipstep.training.run import Run

Cli = Callable[..., tuple[int, str, str]]
FIGHT = Path(__file__).parents[2] / "training/demo/fight"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pack") / "ein Bündel.clipstep.zip"


def test_a_pack_of_synthetic_steps_is_smaller_holds_no_footage_and_verifies(clipstep: Cli, bundle_path: Path, pack: Path) -> None:
    code, out, err = clipstep("pack", bundle_path, "--for", "python", "--golden", "synthetic", "--out", pack)
    assert (code, err) == (0, "")
    assert "step.onnx in onnxruntime, which proved itself" in out and f"wrote {pack}" in out
    footage, data = GoldenSteps.of(Bundle.open(bundle_path)).subclips, pack.read_bytes()
    assert not any(frame.tobytes() in data for subclip in footage for frame in subclip)
    code, out, _ = clipstep("verify", pack)
    assert code == 0 and "16 steps and a reset" in out and out.count("equal") == 2 and "mlpackage" not in out


def test_every_command_takes_a_pack(
    clipstep: Cli, bundle_path: Path, pack: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, records = tmp_path / "temporary", tmp_path / "records.jsonl"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    assert (
        clipstep("run", pack, clip, "--engine", "executorch")[1].splitlines()[1:]
        == clipstep("run", bundle_path, clip, "--engine", "executorch")[1].splitlines()[1:]
    )
    assert "16 on 4 subclips" in clipstep("inspect", pack)[1]
    short = ("--threads", 1, "--rounds", 1, "--steps", 1)
    assert clipstep("bench", pack, *short, "--out", records)[0] == 0
    assert pack.name in clipstep("report", pack, records)[1]
    for command in (("bench", pack, "--arch", "arm64", "--record"),):
        code, _, error = clipstep(*command)
        assert code == 2 and "is a pack, and a pack is never changed; note it in the bundle's folder, and pack that again" in error
    assert list(temporary.glob("clipstep-*")) == []


def test_a_pack_for_ios_does_not_run_here_and_says_so(clipstep: Cli, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    """No other engine of this computer would run it either."""
    pack = tmp_path / "a.clipstep.zip"
    assert clipstep("pack", bundle_path, "--for", "ios", "--out", pack)[0] == 0
    picture = ("--profile", tmp_path / "picture.png")
    for command in (
        ("run", pack, clip),
        ("run", pack, clip, "--engine", "executorch"),
        ("bench", pack),
        ("bench", pack, *picture),
        ("evaluate", pack, FIGHT),
    ):
        code, _, error = clipstep(*command)
        assert code == 2 and "holds Core ML artifacts alone, which run on Apple devices only" in error and "another engine" not in error, command
    assert clipstep("verify", pack)[0] == clipstep("inspect", pack)[0] == 0


def test_the_eager_network_records_the_steps_if_it_is_given(clipstep: Cli, bundle_path: Path, run_folder: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "x.clipstep.zip"
    code, said, _ = clipstep("pack", bundle_path, "--for", "android", "--golden", "synthetic", "--run", run_folder, "--out", out)
    assert code == 0 and "outputs by the eager network" in said
    with Bundle.open(out) as bundle:
        golden = GoldenSteps.of(bundle)
        assert bundle.manifest.golden.recorded_by == "the eager network" and bundle.manifest.golden.frame_sources == ("synthetic",)
    from clipstep.export.step import program_of

    program = program_of(run.spec())
    logits, *_ = program.step(program.frames.new_tensor(golden.subclips[0]), *program.states.values())
    assert np.array_equal(logits[0].detach().numpy(), golden.logits[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--for", "python", "--out", "x.zip"), "a pack's name ends in .clipstep.zip; got x.zip"),
        (("--for", "python", "--out", "there.clipstep.zip"), "there.clipstep.zip: is there already; give --force"),
        (("--for", "python", "--out", "no/x.clipstep.zip"), "no such folder"),
        (("--for", "windows", "--out", "x.clipstep.zip"), "windows"),
        (("--for", "python", "--out", "x.clipstep.zip", "--run", "r"), "--run and --model record synthetic golden steps; got --golden full"),
    ],
)
def test_what_cannot_be_packed(
    clipstep: Cli, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.clipstep.zip").write_text("something of mine")
    code, _, error = clipstep("pack", bundle_path, *arguments)
    assert code == 2 and message in error
    assert Path("there.clipstep.zip").read_text() == "something of mine" and not Path("x.clipstep.zip").exists()


def test_missing_and_extra_files_are_named(clipstep: Cli, bundle_copy: Path, clip_at_25: Path, tmp_path: Path) -> None:
    (bundle_copy / "step.pte").unlink()
    for name in (".DS_Store", "step-float32.mlpackage/.DS_Store", "step-float32.mlpackage/Data/._weights"):
        (bundle_copy / name).write_bytes(b"Finder")
    code, out, error = clipstep("run", bundle_copy, clip_at_25)
    assert code == 0 and out.startswith("step.onnx") and error == f"note: {bundle_copy}: missing: step.pte\n"
    code, out, _ = clipstep("inspect", bundle_copy)
    assert code == 0 and "step.pte: executorch" in out and "MISSING" in out
    assert "extra         .DS_Store, step-float32.mlpackage/.DS_Store, step-float32.mlpackage/Data/._weights: not named" in out
    code, out, error = clipstep("verify", bundle_copy)
    assert code == 2 and out.count("equal") == 3 and f"error: {bundle_copy}: not verified, because these are missing: step.pte" in error
    code, _, error = clipstep("run", bundle_copy, clip_at_25, "--engine", "executorch")
    assert code == 2 and "step.pte is missing; copy the bundle again, whole" in error
    assert clipstep("pack", bundle_copy, "--for", "ios", "--out", tmp_path / "x.clipstep.zip")[0] == 0
    names = zipfile.ZipFile(tmp_path / "x.clipstep.zip").namelist()
    assert names[0] == "manifest.json" and len(names) == 8 and not any("DS_Store" in name or "._" in name for name in names)
