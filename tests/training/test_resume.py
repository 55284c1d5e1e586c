"""A training that is killed and resumed ends with the same result as one that was never stopped."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from clipstep.runtime import ClipstepError
from clipstep.training.checkpoint import load_checkpoint
from clipstep.training.train_command import train_command

OPTIONS = (
    "--frames",
    "16",
    "--size",
    "64",
    "--epochs",
    "4",
    "--batch-size",
    "2",
    "--workers",
    "1",
    "--validation",
    "0.25",
    "--learning-rate",
    "0.01",
    "--ema",
    "0.5",
    "--schedule",
    "cosine",
    "--accumulate",
    "2",
    "--truncate",
    "2",
    "--seed",
    "2",
)


def _train(data: Path, out: Path, *options: str) -> Any:
    return CliRunner().invoke(train_command, [str(data), "--out", str(out), *OPTIONS, *options], standalone_mode=False)


@pytest.fixture(scope="module")
def killed(few_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training killed by the system after its first checkpoint, somewhere in a later epoch."""
    out = tmp_path_factory.mktemp("killed") / "run"
    command = [
        sys.executable,
        "-c",
        "from clipstep.runtime.command_line.cli import main; main()",
        "train",
        str(few_videos),
        "--out",
        str(out),
        *OPTIONS,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "run.json").exists()
    return out


@pytest.mark.long
def test_a_killed_training_resumes_as_if_never_stopped(few_videos: Path, killed: Path, tmp_path: Path) -> None:
    done = len(load_checkpoint(killed / "checkpoint.safetensors")["history"]["rows"])
    assert done < 4
    with pytest.raises(ClipstepError, match=r"belongs to another training; got learning_rate 0\.01, seed 2; expected learning_rate 0\.1, seed 3"):
        raise _train(few_videos, killed, "--resume", "--learning-rate", "0.1", "--seed", "3").exception
    resumed, whole = _train(few_videos, killed, "--resume"), _train(few_videos, tmp_path / "whole")
    assert resumed.exception is None and whole.exception is None, (resumed, whole)
    assert f"resuming after epoch {done} of 4" in resumed.output
    for name in ("model.safetensors", "last/model.safetensors"):
        a, b = (safetensors.torch.load_file(folder / name) for folder in (killed, tmp_path / "whole"))
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], atol=0, rtol=0, msg=key)
    logs = []
    for folder in (killed, tmp_path / "whole"):
        with (folder / "log.csv").open() as file:
            logs.append([{k: v for k, v in row.items() if k not in ("seconds", "waiting_share")} for row in csv.DictReader(file)])
    assert logs[0] == logs[1] and len(logs[0]) == 4
    assert not (killed / "unfinished").exists()


def test_resuming_without_a_checkpoint_starts_a_training(tiny_data: Path, tmp_path: Path) -> None:
    result = _train(tiny_data, tmp_path / "run", "--resume", "--epochs", "1", "--validation", "0")
    assert result.exception is None and "going on" not in result.output


def test_a_training_out_of_time_can_be_resumed(tiny_data: Path, tmp_path: Path) -> None:
    """Stopped by its time limit in the first epoch, it leaves a run without a checkpoint; then it is resumed with enough time."""
    options = ("--validation", "0", "--epochs", "2", "--accumulate", "1", "--batch-size", "1", "--workers", "0", "--frames", "8", "--size", "48")
    first = _train(tiny_data, tmp_path / "run", *options, "--max-minutes", "0.0001")
    assert first.exception is None and (tmp_path / "run/run.json").exists()
    assert (tmp_path / "run/log.csv").read_text().splitlines()[1].startswith("1,False,")
    second = _train(tiny_data, tmp_path / "run", *options, "--resume")
    assert second.exception is None
    assert [line.split(",")[:2] for line in (tmp_path / "run/log.csv").read_text().splitlines()[1:]] == [["1", "True"], ["2", "True"]]
