"""``clipstep train``: a data set in, a run out; broken videos are named, skipped and counted; mistakes exit with 2."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from clipstep.runtime import ClipstepError, frame_rate
from clipstep.runtime.cli import main
from clipstep.training.cli import train_command
from clipstep.training.data.lists import read_data_set
from clipstep.training.data.subclips import channel_statistics, read_subclips
from clipstep.training.models import build
from clipstep.training.run import load_run
from clipstep.training.train import evaluate_top1

SMALL = ("--frames", "16", "--size", "64", "--epochs", "1", "--workers", "0", "--batch-size", "2")


def _train(data: Path, out: Path, *options: str) -> Any:
    return CliRunner().invoke(train_command, [str(data), "--out", str(out), *SMALL, *options], standalone_mode=False)


def test_the_run_holds_what_was_trained_on_what(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--seed", "3")
    assert result.exception is None, result.output
    run, data = load_run(tmp_path / "run"), read_data_set(tiny_data)
    summary = run.info.training
    assert run.info.classes == ("Fight", "NoFight")
    assert dict(run.info.config) == {"classes": 2, "frames": 16, "size": 64, "alpha": 2, "beta": 1}
    assert (run.info.mean, run.info.deviation) == tuple(map(tuple, channel_statistics(data.train, 16, 64)))
    assert run.info.fps == pytest.approx(sum(frame_rate(clip.path) for clip in data.train) / 2, abs=1e-3)
    assert torch.equal(run.sample, torch.cat([read_subclips(clip.path, 16, 64) for clip in data.test])[:8])
    assert (summary["epochs_done"], summary["train_videos"], summary["skipped_videos"], summary["test_videos"]) == (1, 2, {}, 2)
    assert summary["test_largest_class_share"] == 0.5
    top1, _ = evaluate_top1(run.network, data.test, run.info, 16, 64, Console(quiet=True))
    assert summary["test_top1"] == top1
    assert f"test top-1 {top1:.1%} of 2 videos" in " ".join(result.output.split())


def test_one_batch_is_one_step_of_gradient_descent(tiny_data: Path, tmp_path: Path) -> None:
    """With momentum, too, the first step is minus rate times gradient: the same seed at twice the rate goes twice as far."""
    moved = []
    for rate in ("0.001", "0.002"):
        assert _train(tiny_data, tmp_path / rate, "--learning-rate", rate, "--seed", "5").exception is None
        run = load_run(tmp_path / rate)
        lightning.seed_everything(5, verbose=False)
        start = build(run.info.architecture, run.info.config)
        pairs = zip(run.network.parameters(), start.parameters(), strict=True)
        moved.append(torch.cat([(trained - random).detach().flatten() for trained, random in pairs]))
    assert moved[0].norm() > 1e-4
    assert (moved[1] - 2 * moved[0]).norm() < 1e-3 * moved[1].norm()


def test_broken_videos_are_named_skipped_and_counted(tiny_data: Path, tmp_path: Path) -> None:
    broken = tiny_data / "videos/Fight/v_Fight_g99_c01.mp4"
    broken.write_text("no video")
    for name, label in (("trainlist01.txt", " 1"), ("testlist01.txt", "")):
        with (tiny_data / name).open("a") as file:
            file.write(f"Fight/{broken.name}{label}\n")
    with pytest.warns(UserWarning, match=r"skipped: .*v_Fight_g99_c01\.mp4: cannot be decoded"):
        result = _train(tiny_data, tmp_path / "run")
    assert result.exception is None, result.output
    summary = json.loads((tmp_path / "run/run.json").read_text())["training"]
    assert list(summary["skipped_videos"]) == list(summary["skipped_test_videos"]) == [str(broken)]
    assert "cannot be decoded" in summary["skipped_videos"][str(broken)]
    assert (summary["train_videos"], summary["test_videos"]) == (2, 2)
    assert "2 broken videos skipped" in " ".join(result.output.split())


def test_an_older_run_is_replaced(tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("{}")
    assert _train(tiny_data, out).exception is None
    assert load_run(out).info.classes == ("Fight", "NoFight")


def test_a_folder_that_is_no_run_is_refused_before_training(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.txt").write_text("years of work")
    monkeypatch.setattr(sys, "argv", ["clipstep", "train", str(tiny_data), "--out", str(out), *SMALL])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr() == ("", f"error: {out}: exists and is not a run; expected a new folder or an older run; choose another --out\n")
    assert [path.name for path in out.iterdir()] == ["chapter1.txt"]


def test_a_bad_list_is_an_error_before_training(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--split", "2")
    assert isinstance(result.exception, ClipstepError) and "trainlist02.txt: no such file" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [("--size", "16"), ("--frames", "4", "--size", "32")])
def test_the_smallest_sizes_are_trained_even_when_one_video_is_left(tiny_data: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """The last stage's volume is then 1x1x1, and a batch norm in training mode wants more than one value a channel."""
    with (tiny_data / "trainlist01.txt").open("w") as file:
        file.write("Fight/v_Fight_g02_c01.mp4 1\n")
    result = _train(tiny_data, tmp_path / "run", *options)
    assert result.exception is None or isinstance(result.exception, ClipstepError), repr(result.exception)
