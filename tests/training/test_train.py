"""``clipstep train``: a data set in, a run out; broken videos are named, skipped and counted; mistakes exit with 2."""

import csv
import json
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import lightning
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from clipstep.network.videos import read_subclips
from clipstep.runtime import ClipstepError, frame_rate, read_frames
from clipstep.training.data.encode import write_video
from clipstep.training.data.lists import read_data_set, split_by_group
from clipstep.training.data.subclips import channel_statistics
from clipstep.training.models import build
from clipstep.training.predict import video_logits
from clipstep.training.run import Run, load_run
from clipstep.training.train_command import train_command

SMALL = ("--frames", "16", "--size", "64", "--epochs", "1", "--workers", "0", "--batch-size", "2", "--validation", "0")


def _train(data: Path, out: Path, *options: str) -> Any:
    return CliRunner().invoke(train_command, [str(data), "--out", str(out), *SMALL, *options], standalone_mode=False)


def test_the_run_holds_what_was_trained_on_what(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--seed", "3")
    assert result.exception is None, result.output
    run, data = load_run(tmp_path / "run"), read_data_set(tiny_data)
    summary = run.info.training
    assert run.info.labels == ("Fight", "NoFight")
    assert dict(run.info.config) == {"classes": 2, "frames": 16, "size": 64, "alpha": 2, "beta": 1}
    assert (run.info.mean, run.info.std) == tuple(map(tuple, channel_statistics(data.train, 16, 64, fps=run.info.fps)))
    assert run.info.fps == pytest.approx(sum(frame_rate(clip.path) for clip in data.train) / 2, abs=1e-3)
    assert torch.equal(run.sample, torch.cat([read_subclips(clip.path, 16, 64, fps=run.info.fps) for clip in data.test])[:8])
    assert (summary["epochs_done"], summary["train_videos"], summary["skipped_videos"], summary["test_videos"]) == (1, 2, {}, 2)
    assert summary["test_largest_class_share"] == 0.5
    last = [video_logits(run.network, read_subclips(clip.path, 16, 64, fps=run.info.fps), run.info)[-1] for clip in data.test]
    top1 = sum(int(logits.argmax()) == clip.label for logits, clip in zip(last, data.test, strict=True)) / 2
    assert summary["test_top1"] == top1
    assert f"test top-1 {top1:.1%} of 2 videos" in " ".join(result.output.split())


def test_one_batch_is_one_step_of_gradient_descent(tiny_data: Path, tmp_path: Path) -> None:
    """With momentum, too, the first step is minus rate times gradient: the same seed at twice the rate goes twice as far."""
    moved = []
    for rate in ("0.001", "0.002"):
        options = ("--optimizer", "sgd", "--learning-rate", rate, "--weight-decay", "0", "--seed", "5")
        assert _train(tiny_data, tmp_path / rate, *options).exception is None
        run = load_run(tmp_path / rate)
        lightning.seed_everything(5, verbose=False)
        start = build(run.info.architecture, run.info.config)
        pairs = zip(run.network.parameters(), start.parameters(), strict=True)
        moved.append(torch.cat([(trained - random).detach().flatten() for trained, random in pairs]))
    assert moved[0].norm() > 1e-4
    assert (moved[1] - 2 * moved[0]).norm() < 1e-3 * moved[1].norm()


def test_broken_videos_are_named_skipped_and_counted(tiny_data: Path, tmp_path: Path) -> None:
    broken = [tiny_data / f"videos/Fight/v_Fight_g{group}_c01.mp4" for group in (98, 99)]
    for name, label, path in zip(("trainlist01.txt", "testlist01.txt"), (" 1", ""), broken, strict=True):
        path.write_text(f"no video for {name}")
        with (tiny_data / name).open("a") as file:
            file.write(f"Fight/{path.name}{label}\n")
    with pytest.warns(UserWarning, match=r"skipped: .*v_Fight_g98_c01\.mp4: cannot be decoded"):
        result = _train(tiny_data, tmp_path / "run")
    assert result.exception is None, result.output
    summary = json.loads((tmp_path / "run/run.json").read_text())["training"]
    assert [list(summary[key]) for key in ("skipped_videos", "skipped_test_videos")] == [[str(path)] for path in broken]
    assert "cannot be decoded" in summary["skipped_videos"][str(broken[0])]
    assert (summary["train_videos"], summary["test_videos"]) == (2, 2)
    assert "2 broken videos skipped" in " ".join(result.output.split())


def test_a_folder_that_is_no_run_is_refused_before_training(tiny_data: Path, tmp_path: Path, clipstep: Callable[..., tuple[int, str, str]]) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.txt").write_text("years of work")
    assert clipstep("train", tiny_data, "--out", out, *SMALL) == (
        2,
        "",
        f"error: {out}: exists and is not a run; expected a new folder or an older run; choose another --out\n",
    )
    assert [path.name for path in out.iterdir()] == ["chapter1.txt"]


def test_a_bad_list_is_an_error_before_training(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--split", "2")
    assert isinstance(result.exception, ClipstepError) and "trainlist02.txt: no such file" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [("--size", "16"), ("--frames", "4", "--size", "32")])
def test_the_smallest_sizes_are_trained_even_when_one_video_is_left(tiny_data: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """The last stage's volume is then 1x1x1, and a batch norm in training mode needs more than one value for each channel."""
    result = _train(tiny_data, tmp_path / "run", "--batch-size", "1", *options)
    assert result.exception is None or isinstance(result.exception, ClipstepError), repr(result.exception)


def test_with_validation_the_best_epoch_is_kept_and_the_last_lies_beside(few_videos: Path, tmp_path: Path) -> None:
    """The log says which epoch had the best validation; the kept network has its loss, computed anew by hand."""
    options = ("--epochs", "3", "--validation", "0.25", "--learning-rate", "0.01")
    result = _train(few_videos, tmp_path / "run", *options)
    assert result.exception is None, result.output
    best, last = load_run(tmp_path / "run"), load_run(tmp_path / "run/last")
    _, held = split_by_group(read_data_set(few_videos).train, 0.25, 0)
    with (tmp_path / "run/log.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["validation_loss"]) for row in rows]
    ranked = [(float(row["validation_top1"]), -loss) for row, loss in zip(rows, losses, strict=True)]

    def loss(run: Run) -> float:
        logits = [video_logits(run.network, read_subclips(clip.path, 16, 64, fps=run.info.fps), run.info)[-1] for clip in held]
        return float(torch.nn.functional.cross_entropy(torch.stack(logits), torch.tensor([clip.label for clip in held])))

    assert len(losses) == 3 and best.info.training["best_epoch"] == ranked.index(max(ranked)) + 1
    assert loss(best) == pytest.approx(losses[ranked.index(max(ranked))], rel=1e-4)
    assert loss(last) == pytest.approx(losses[-1], rel=1e-4)
    assert best.info.training["validation_videos"] == len(held) == 2


def test_the_papers_training_is_one_option_and_what_is_given_wins(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--config", "paper", "--learning-rate", "0.01")
    assert result.exception is None, result.output
    summary = load_run(tmp_path / "run").info.training
    assert [summary[key] for key in ("optimizer", "momentum", "weight_decay", "loss", "schedule", "patience")] == [
        "sgd",
        0.9,
        0.0,
        "last",
        "plateau",
        10,
    ]
    assert (summary["learning_rate"], summary["epochs"], summary["validation"]) == (0.01, 1, 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no.toml: cannot be read; got No such file or directory; expected a TOML file, or paper"),
        ("epochs = ", "no.toml: is not TOML; got "),
        ("epochs = 3\nleaning-rate = 1", "no.toml: unknown option; got leaning-rate; expected some of accelerator, "),
        ("epochs = 3\nout = 'x'", "no.toml: unknown option; got out"),
    ],
)
def test_a_bad_config(tiny_data: Path, tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "no.toml").write_text(content)
    result = _train(tiny_data, tmp_path / "run", "--config", str(tmp_path / "no.toml"))
    assert isinstance(result.exception, ClipstepError) and message in str(result.exception)


def test_a_config_with_a_value_that_does_not_fit(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("loss = 'first'")
    result = _train(tiny_data, tmp_path / "run", "--config", str(tmp_path / "c.toml"))
    assert isinstance(result.exception, click.BadParameter) and "'first' is not one of 'every', 'last'" in str(result.exception)


def test_a_stopped_training_is_not_overwritten_by_mistake(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.safetensors").write_bytes(b"hours of work")
    result = _train(tiny_data, tmp_path / "run")
    assert isinstance(result.exception, ClipstepError) and "holds a training that was stopped; go on with --resume" in str(result.exception)
    assert (tmp_path / "run/checkpoint.safetensors").read_bytes() == b"hours of work"


def test_an_accelerator_that_is_not_there(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = _train(tiny_data, tmp_path / "run", "--accelerator", "cuda")
    assert isinstance(result.exception, ClipstepError)
    assert "cannot train on 1 cuda; got " in str(result.exception) and "choose another --accelerator" in str(result.exception)


def test_presets_are_the_home_networks(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--architecture", "mobilenet3d", "--preset", "a4b2")
    assert isinstance(result.exception, ClipstepError) and "mobilenet3d has no presets; got --preset a4b2" in str(result.exception)


def test_another_network_without_states_is_trained_and_loaded(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--architecture", "shufflenet3d_0.5x")
    assert result.exception is None, result.output
    run = load_run(tmp_path / "run")
    assert run.info.architecture == "shufflenet3d_0.5x" and dict(run.info.config) == {"classes": 2, "frames": 16, "size": 64}
    assert run.network(torch.zeros(1, 3, 16, 64, 64)).shape == (1, 2)


def test_videos_of_several_rates_are_read_at_one_and_that_is_said(tiny_data: Path, tmp_path: Path) -> None:
    """Of 60 frames at 60 a second 20 are left at 20, one whole subclip. The median of 20 and 60 is 40."""
    lines = (tiny_data / "trainlist01.txt").read_text().split()[::2]
    for line, rate in zip(lines, (20, 60), strict=True):
        path = tiny_data / "videos" / line
        write_video(path, [frame[:96, :96] for frame in islice(cycle(read_frames(path)), 60)], rate)
    cache = tmp_path / "cache"
    result = _train(tiny_data, tmp_path / "run", "--fps", "20", "--cache", str(cache))
    assert result.exception is None, result.output
    assert "training videos of 20 to 60 frames a second, taken at 20: frames are left out or repeated; see --fps" in result.output
    info = load_run(tmp_path / "run").info
    assert info.fps == info.training["fps"] == 20 and info.training["video_rates"] == [20, 60]
    assert sorted(len(np.load(file)) for file in cache.iterdir()) == [16, 48]
    assert _train(tiny_data, tmp_path / "median").exception is None
    assert load_run(tmp_path / "median").info.fps == 40
    tuned = _train(tiny_data, tmp_path / "tuned", "--init", str(tmp_path / "run"))
    assert tuned.exception is None and load_run(tmp_path / "tuned").info.fps == 20
    resumed = _train(tiny_data, tmp_path / "run", "--fps", "30", "--resume", "--epochs", "2")
    assert "fps" in str(resumed.exception)
