"""A run records what it was trained on, as do its bundle and runs fine-tuned from it, so that leakage into a test is noticed."""

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clipstep.export.cli import export_command
from clipstep.training.data.lists import read_data_set
from clipstep.training.data.trained_on import TrainedOn
from clipstep.training.run import load_run, note_in_run
from clipstep.training.train_command import train_command

pytestmark = pytest.mark.usefixtures("shallow")

Cli = Callable[..., tuple[int, str, str]]
QUICK = ["--epochs", "1", "--workers", "0", "--batch-size", "2", "--validation", "0", "--size", "64", "--frames", "4"]
SPLITS = {1: ("g02", "g13"), 2: ("g13", "g02"), 3: ("g05", "g13"), 4: ("g05", "g02")}
"""The group that is trained on, and the one that is tested with."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, fight: Path) -> Path:
    """One video of each class to train on and one to test with, in four splits."""
    folder = tmp_path_factory.mktemp("splits")
    shutil.copy(fight / "classInd.txt", folder)
    for split, lists in SPLITS.items():
        for kind, group in zip(("train", "test"), lists, strict=True):
            lines = []
            for number, name in enumerate(("Fight", "NoFight"), 1):
                file = f"{name}/v_{name}_{group}_c01.mp4"
                (folder / "videos" / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(fight / "videos" / file, folder / "videos" / file)
                lines.append(f"{file} {number}\n" if kind == "train" else f"{file}\n")
            (folder / f"{kind}list{split:02d}.txt").write_text("".join(lines))
    return folder


def _train(data: Path, out: Path, *options: object) -> Any:
    return CliRunner().invoke(train_command, [str(data), "--out", str(out), *QUICK, *map(str, options)], standalone_mode=False)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on split 1."""
    out = tmp_path_factory.mktemp("trained") / "run"
    result = _train(data, out)
    assert result.exception is None, result.output
    return out


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    out = trained.parent / "run.clipstep"
    result = CliRunner().invoke(export_command, [str(trained), "--out", str(out), "--target", "onnx"], standalone_mode=False)
    assert result.exception is None, result.output
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def _without_record(run: Path) -> Path:
    values = json.loads((run / "run.json").read_text())
    del values["training"]["trained_on"]
    (run / "run.json").write_text(json.dumps(values))
    return run


def _about_training(summary: dict[str, Any]) -> list[str]:
    """The warnings, without that of the training list, which is short here."""
    return [warning for warning in summary["warnings"] if "there is only one video to train on" not in warning]


def test_a_runs_own_split_has_no_leakage(trained: Path, exported: Path, data: Path, clipstep: Cli) -> None:
    for what in (trained, exported):
        code, said, _ = clipstep("evaluate", what, data, "--json")
        assert code == 0 and _about_training(json.loads(said)) == []


def test_a_split_whose_test_videos_it_was_trained_on_is_refused(trained: Path, exported: Path, data: Path, clipstep: Cli) -> None:
    for what, other in ((trained, ()), (exported, ()), (trained, ("--with", exported))):
        code, said, err = clipstep("evaluate", what, data, "--split", 2, *other)
        assert code == 2 and "top-1" not in said and len(err.splitlines()) == 1
        assert f"{what}: data leakage; got {what} was trained on 2 of the 2 test videos: v_Fight_g02_c01.mp4, v_NoFight_g02" in err


def test_allowed_leakage_is_a_warning_in_the_output_the_json_and_the_manifest(exported: Path, data: Path, clipstep: Cli, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported, tmp_path / "copy.clipstep"))
    code, said, _ = clipstep("evaluate", bundle, data, "--split", 2, "--allow-leakage", "--record", "--json")
    (warning,) = _about_training(json.loads(said))
    assert code == 0 and "was trained on 2 of the 2 test videos" in warning
    noted = json.loads((bundle / "manifest.json").read_text())["artifacts"][0]["accuracy"]["dataset"]
    assert noted.endswith("testlist02, some of whose videos it was trained on or counts twice")


def test_videos_are_recognised_by_content_under_other_names(trained: Path, data: Path, tmp_path: Path, clipstep: Cli, fight: Path) -> None:
    """Content decides. The same name alone is a warning: it may be the same video encoded again, or another data set with such names."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    videos = other / "videos/Fight"
    (videos / "v_Fight_g02_c01.mp4").rename(videos / "v_Fight_g77_c01.mp4")
    shutil.copy(fight / "videos/NoFight/v_NoFight_g21_c01.mp4", other / "videos/NoFight/v_NoFight_g02_c09.mp4")
    (other / "testlist02.txt").write_text("Fight/v_Fight_g77_c01.mp4\nNoFight/v_NoFight_g02_c09.mp4\n")
    code, said, _ = clipstep("evaluate", trained, other, "--split", 2, "--allow-leakage")
    assert code == 0 and f"warning: {trained} was trained on 1 of the 2 test videos: v_Fight_g77_c01.mp4\n" in said
    assert "warning: by their names, 1 of the 2 test videos are of source videos that" in said and "new videos are: v_NoFight_g02_c09.mp4\n" in said


def test_a_training_refuses_initial_weights_that_saw_its_test_videos(trained: Path, data: Path, tmp_path: Path) -> None:
    result = _train(data, tmp_path / "tuned", "--init", trained, "--split", 4)
    assert "was trained on 2 of the 2 test videos: v_Fight_g02_c01.mp4" in str(result.exception)
    assert "start from another run, or allow it with --allow-leakage" in str(result.exception) and not (tmp_path / "tuned").exists()


def test_the_record_includes_what_the_initial_weights_were_trained_on(trained: Path, data: Path, tmp_path: Path, clipstep: Cli) -> None:
    tuned = tmp_path / "tuned"
    assert _train(data, tuned, "--init", trained, "--split", 3).exception is None
    assert clipstep("evaluate", tuned, data, "--split", 3)[0] == 0
    code, _, err = clipstep("evaluate", tuned, data, "--split", 4)
    assert code == 2 and "was trained on 2 of the 2 test videos: v_Fight_g02_c01.mp4" in err


def test_weights_without_a_record_leave_an_incomplete_one(trained: Path, data: Path, tmp_path: Path, clipstep: Cli) -> None:
    tuned, said = tmp_path / "tuned", "does not say what it was trained on: whether that is among the test videos is not known"
    result = _train(data, tuned, "--init", trained / "model.safetensors", "--split", 3)
    assert result.exception is None and said in result.output
    assert any(said in warning for warning in load_run(tuned).info.training["warnings"])
    code, out, _ = clipstep("evaluate", tuned, data, "--split", 4)
    assert code == 0 and f"warning: {tuned} does not say all that it was trained on: " in out


def test_an_older_run_without_a_record_gets_one_by_resuming(run: Path, data: Path, clipstep: Cli) -> None:
    whole = json.loads((run / "run.json").read_text())
    code, said, _ = clipstep("evaluate", _without_record(run), data, "--split", 2)
    assert code == 0 and f"warning: {run} does not say what it was trained on" in said
    result = _train(data, run, "--resume")
    assert f"noted in {run} what it was trained on: 2 videos of the training list" in result.output
    assert json.loads((run / "run.json").read_text()) == whole
    assert "was trained on" in clipstep("evaluate", run, data, "--split", 2)[2]


def test_resuming_with_another_training_list_adds_no_record(run: Path, data: Path) -> None:
    result = _train(data, _without_record(run), "--resume", "--split", 3)
    assert "belongs to another training; got another training list" in str(result.exception)
    assert "trained_on" not in load_run(run).info.training


def test_the_record_holds_no_names_and_is_small(trained: Path, data: Path) -> None:
    record = json.dumps(load_run(trained).info.training["trained_on"])
    assert len(record) < 200 and "Fight" not in record and "g02" not in record
    assert TrainedOn.read({"trained_on": json.loads(record)}, "it") == TrainedOn.of(read_data_set(data).train)
    of_ucf101 = TrainedOn(frozenset(secrets.token_bytes(8) for _ in range(9537)), frozenset(secrets.token_bytes(8) for _ in range(1800)))
    assert len(json.dumps(of_ucf101.values())) < 125_000


@pytest.mark.parametrize("record", [7, {}, {"contents": "!", "sources": "", "complete": True}, {"contents": "AAAA", "sources": "", "complete": True}])
def test_a_malformed_record_is_one_line(run: Path, data: Path, clipstep: Cli, record: object) -> None:
    note_in_run(run, {"trained_on": record})
    code, _, err = clipstep("evaluate", run, data)
    assert code == 2 and "copy: what it was trained on is malformed" in err and len(err.splitlines()) == 1
