"""A checkpoint returns what was saved, and the previous one survives if writing the next one fails."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipstep.runtime import ClipstepError
from clipstep.training.checkpoint import load_checkpoint, save_checkpoint

STATE = {
    "network": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)},
    "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "groups": [{"lr": 0.1, "params": [0, 1]}]},
    "averaged": None,
    "best_loss": float("inf"),
    "empty": {},
}


def test_loading_returns_what_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", STATE)
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(loaded["network"]["a.weight"], STATE["network"]["a.weight"])
    assert loaded["network"]["a.count"].dtype == torch.int64 and int(loaded["network"]["a.count"]) == 3
    assert loaded["optimizer"]["state"]["0"]["step"] == 2.0
    assert loaded["optimizer"]["groups"] == [{"lr": 0.1, "params": [0, 1]}]
    assert (loaded["averaged"], loaded["best_loss"], loaded["empty"]) == (None, float("inf"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_tensor_that_is_kept_twice_or_is_a_view(tmp_path: Path) -> None:
    both = torch.arange(8.0).reshape(2, 4)
    save_checkpoint(tmp_path / "c.safetensors", {"one": both, "same": both, "turned": both.T, "part": both[:, 1]})
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(loaded["one"], both) and torch.equal(loaded["same"], both)
    assert torch.equal(loaded["turned"], both.T) and torch.equal(loaded["part"], both[:, 1])


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from clipstep.runtime import ClipstepError
from clipstep.training.checkpoint import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path(sys.argv[1]), {"weights": torch.zeros(100_000)})
except ClipstepError as error:
    print(error)
"""


def test_when_the_disk_is_full_the_earlier_checkpoint_survives(tmp_path: Path) -> None:
    """The system refuses to write more than 100 kB here, as a full disk does."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE)
    before = path.read_bytes()
    said = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True).stdout
    assert said == f"{path}: cannot be written; got File too large; the earlier one is whole; make room, then go on with --resume\n"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"c\.safetensors: no such file; expected the checkpoint of an earlier training"):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize("keep", [0, 20, 500])
def test_a_checkpoint_cut_short(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, STATE)
    assert path.stat().st_size > keep
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ClipstepError, match=r"c\.safetensors: cannot be read; got .*; delete it and train anew"):
        load_checkpoint(path)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(ClipstepError, match=r"c\.safetensors: cannot be read"):
        load_checkpoint(tmp_path / "c.safetensors")
