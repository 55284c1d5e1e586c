"""A finished run stays intact until the new one is complete: after repeated commands, --force, interrupts, kills, and more epochs."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from clipstep.runtime import ClipstepError
from clipstep.runtime.bundle import tree_sha256
from clipstep.training.run import load_run
from clipstep.training.train_command import train_command
from clipstep.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("shallow")

Cli = Callable[..., tuple[int, str, str]]
SMALL = ("--frames", "16", "--size", "64", "--epochs", "1", "--workers", "0", "--batch-size", "2", "--validation", "0", "--learning-rate", "0.01")


def _train(data: Path, out: Path, *options: object) -> Any:
    return CliRunner().invoke(train_command, [str(data), "--out", str(out), *SMALL, *map(str, options)], standalone_mode=False)


def _done(result: Any) -> str:
    assert result.exception is None, repr(result.exception)
    return " ".join(result.output.split())


class Killed(BaseException):
    """An error that stands for the end of the process."""


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``dies(epoch, error)``: in that epoch, counted from 0."""
    epoch = Trainer.epoch

    def make(number: int | None, error: type[BaseException] = Killed) -> None:
        def fail(self: Trainer, now: int, *args: Any) -> Any:
            if now == number:
                raise error
            return epoch(self, now, *args)

        monkeypatch.setattr(Trainer, "epoch", fail)

    return make


@pytest.fixture(scope="module")
def finished(fight: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny data set, and a run of one epoch on it."""
    data = tmp_path_factory.mktemp("finished") / "data"
    shutil.copytree(fight, data)
    for name, lines in (
        ("trainlist01.txt", ("Fight/v_Fight_g02_c01.mp4 1", "NoFight/v_NoFight_g02_c01.mp4 2")),
        ("testlist01.txt", ("Fight/v_Fight_g13_c01.mp4", "NoFight/v_NoFight_g13_c01.mp4")),
    ):
        (data / name).write_text("".join(f"{line}\n" for line in lines))
    _done(_train(data, data.parent / "run"))
    return data, data.parent / "run"


@pytest.fixture
def copy(finished: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    return finished[0], Path(shutil.copytree(finished[1], tmp_path / "run"))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_repeating_the_command_replaces_nothing(copy: tuple[Path, Path]) -> None:
    data, run = copy
    before = tree_sha256(run)
    error = _train(data, run).exception
    assert isinstance(error, ClipstepError)
    assert str(error).startswith(f"{run}: holds a finished run (slowfast_causal_shufflenet, 2 classes, 1 epoch, of 20")
    assert "replace it with --force once the new one is whole, go on with it by --resume and more --epochs, or choose another --out" in str(error)
    assert tree_sha256(run) == before


def test_an_interrupt_in_the_first_epoch_leaves_the_finished_run_unchanged(copy: tuple[Path, Path], dies: Callable[..., None], clipstep: Cli) -> None:
    data, run = copy
    before = tree_sha256(run)
    dies(0, KeyboardInterrupt)
    code, out, err = clipstep("train", data, "--out", run, *SMALL, "--force", "--seed", 5)
    assert code == 130 and "Traceback" not in err
    assert f"interrupted before an epoch was over: the finished run in {run} is unchanged" in out
    assert tree_sha256(run) == before


def test_an_interrupt_in_the_first_epoch_of_a_new_run_leaves_nothing(
    finished: tuple[Path, Path], tmp_path: Path, dies: Callable[..., None], clipstep: Cli
) -> None:
    dies(0, KeyboardInterrupt)
    code, out, _ = clipstep("train", finished[0], "--out", tmp_path / "new", *SMALL)
    assert code == 130 and "interrupted before the first epoch was over: nothing is kept" in out
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_a_kill_while_a_run_is_replaced_leaves_it_intact_and_the_new_one_resumable(
    copy: tuple[Path, Path], tmp_path: Path, dies: Callable[..., None]
) -> None:
    data, run = copy
    before = {name: (run / name).read_bytes() for name in ("run.json", "model.safetensors", "log.csv", "checkpoint.safetensors")}
    options = ("--seed", 5, "--epochs", 2)
    dies(1)
    with pytest.raises(Killed):
        _train(data, run, *options, "--force")
    assert {name: (run / name).read_bytes() for name in before} == before
    load_run(run)
    dies(None)
    with pytest.raises(ClipstepError, match="holds a finished run"):
        raise _train(data, run, *options).exception
    assert "resuming after epoch 1 of 2" in _done(_train(data, run, *options, "--resume"))
    _done(_train(data, tmp_path / "straight", *options))
    assert all(torch.equal(value, _weights(tmp_path / "straight")[name]) for name, value in _weights(run).items())
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in (tmp_path / "straight").iterdir())


def test_a_stopped_training_survives_a_new_one_that_is_interrupted_at_once(
    finished: tuple[Path, Path], tmp_path: Path, dies: Callable[..., None]
) -> None:
    dies(1)
    with pytest.raises(Killed):
        _train(finished[0], tmp_path / "run", "--epochs", 2)
    before = tree_sha256(tmp_path / "run")
    dies(0)
    with pytest.raises(Killed):
        _train(finished[0], tmp_path / "run", "--force", "--seed", 5)
    assert tree_sha256(tmp_path / "run") == before


@pytest.mark.long
def test_a_finished_run_is_extended_exactly(copy: tuple[Path, Path], tmp_path: Path, dies: Callable[..., None]) -> None:
    """Killed in between, the run of one epoch is still there; at the end it is the run of two, to the last bit."""
    data, run = copy
    before = (run / "model.safetensors").read_bytes()
    dies(1)
    with pytest.raises(Killed):
        _train(data, run, "--epochs", 2, "--resume")
    assert (run / "model.safetensors").read_bytes() == before and load_run(run).info.training["epochs_done"] == 1
    dies(None)
    said = _done(_train(data, run, "--epochs", 2, "--resume"))
    assert "resuming after epoch 1 of 2 (1 planned before); the learning rate continues as if all had been planned from the start" in said
    _done(_train(data, tmp_path / "straight", "--epochs", 2))
    assert all(torch.equal(value, _weights(tmp_path / "straight")[name]) for name, value in _weights(run).items())
    assert (run / "model.safetensors").read_bytes() != before and load_run(run).info.training["epochs"] == 2


def test_extending_a_cosine_schedule_is_reported(finished: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    _done(_train(finished[0], run, "--schedule", "cosine"))
    said = _done(_train(finished[0], run, "--schedule", "cosine", "--epochs", 3, "--resume"))
    assert "the learning rate goes from 0 to 0.0075 and falls along the cosine of 3 epochs: not exactly what 3 epochs from the start" in said
    rates = [float(line.split(",")[5]) for line in (run / "log.csv").read_text().splitlines()[1:]]
    assert rates == pytest.approx([0.01, *(0.005 * (1 + math.cos(math.pi * epoch / 3)) for epoch in (1, 2))])


def test_nothing_is_left_to_do(copy: tuple[Path, Path]) -> None:
    data, run = copy
    before = tree_sha256(run)
    assert f"{run}: the training of 1 epoch is done; more --epochs go on with it" in _done(_train(data, run, "--resume"))
    assert "no time or steps are left for another epoch; it stays as it is" in _done(_train(data, run, "--resume", "--epochs", 2, "--max-steps", 1))
    assert tree_sha256(run) == before
    (run / "checkpoint.safetensors").unlink()
    with pytest.raises(ClipstepError, match=r"is finished, and has no checkpoint\.safetensors to go on from; fine-tune it: --init"):
        raise _train(data, run, "--resume", "--epochs", 2).exception


def test_fewer_epochs_than_are_done(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _done(_train(finished[0], tmp_path / "run", "--epochs", 2))
    with pytest.raises(ClipstepError, match="has 2 epochs already; got --epochs 1; expected at least 2"):
        raise _train(finished[0], tmp_path / "run", "--epochs", 1, "--resume").exception


def test_what_cannot_be_written_is_refused_before_training(
    finished: tuple[Path, Path], tmp_path: Path, dies: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any video is read for the normalisation."""
    data, _ = finished
    dies(0)
    monkeypatch.setattr("clipstep.training.train.channel_statistics", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "file").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1").touch()
    for options, message in (
        ((data / "run",), "lies in the data folder"),
        ((tmp_path / "run", "--cache", tmp_path / "file/cache"), "cache"),
        ((tmp_path / "run", "--resume", "--force"), "got both; expected one of them"),
        ((tmp_path / "thesis", "--force"), "exists and is not a run"),
    ):
        with pytest.raises(ClipstepError, match=message):
            raise _train(data, *options).exception
    monkeypatch.setattr("clipstep.training.progress.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ClipstepError, match=r"not enough room for the run and its checkpoint; got 0 MB free; expected about \d+ MB"):
        raise _train(data, tmp_path / "run").exception


def test_leakage_is_refused_or_warned_of(finished: tuple[Path, Path], tmp_path: Path, clipstep: Cli) -> None:
    data = Path(shutil.copytree(finished[0], tmp_path / "data"))
    with (data / "testlist01.txt").open("a") as file:
        file.write("Fight/v_Fight_g02_c01.mp4\n")
    for command in (("train", data, "--out", tmp_path / "run", *SMALL), ("evaluate", finished[1], data)):
        code, _, err = clipstep(*command)
        assert code == 2 and "data leakage; got 1 video is in both lists: v_Fight_g02_c01.mp4" in err
        code, out, _ = clipstep(*command, "--allow-leakage")
        assert code == 0 and "warning: 1 video is in both lists: v_Fight_g02_c01.mp4" in out
    assert "1 video is in both lists: v_Fight_g02_c01.mp4" in load_run(tmp_path / "run").info.training["warnings"]
