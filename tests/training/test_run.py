"""A run is written atomically, and read only if it is unchanged."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from clipstep.runtime import ClipstepError
from clipstep.runtime.filesystem import atomic
from clipstep.training.run import Run, RunInfo, load_run, save_run

FILES = ["model.safetensors", "run.json", "sample.safetensors"]


@pytest.fixture
def run(small_network: Callable[..., nn.Module]) -> Run:
    config = {"classes": 3, "frames": 4, "size": 32}
    info = RunInfo("slowfast_causal_shufflenet", config, ("a", "b", "c"), (104.5, 101.0, 97.0), (58.0, 57.0, 59.5), 29.97, training={"epochs": 1})
    return Run(small_network(), info, torch.randint(256, (5, 4, 32, 32, 3), dtype=torch.uint8))


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    save_run(tmp_path / "runs/small", run)
    return tmp_path / "runs/small"


def _edit(folder: Path, **values: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@torch.no_grad()
def test_loading_returns_what_was_saved(run: Run, folder: Path) -> None:
    loaded = load_run(folder)
    inputs = torch.randn(1, 3, 4, 32, 32), *(torch.randn(1, 12, 16, 16) for _ in range(2))
    for got, wanted in zip(loaded.network(*inputs), run.network(*inputs), strict=True):
        assert torch.equal(got, wanted)
    assert not loaded.network.training
    assert torch.equal(loaded.sample, run.sample)
    assert replace(loaded.info, checkpoint_sha256="") == run.info


def test_saving_what_was_loaded_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    save_run(tmp_path / "again", load_run(folder))
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ClipstepError, match=f"small: is not a run; got no {name}; expected a folder written by clipstep train"):
        load_run(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match="nowhere: is not a run"):
        load_run(tmp_path / "nowhere")


def test_other_weights_than_training_wrote(run: Run, folder: Path) -> None:
    weights = {name: value + 1 if value.is_floating_point() else value for name, value in run.network.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    with pytest.raises(ClipstepError, match=r"model\.safetensors is not the file that training wrote; train it again"):
        load_run(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "sample.safetensors"])
@pytest.mark.parametrize("keep", [0, 100])
def test_a_file_cut_short(folder: Path, name: str, keep: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(ClipstepError, match=r"small: cannot be read; got .*; train it again"):
        load_run(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"architecture": "x"}', b"\xff\xfe"])
def test_a_malformed_run_json(folder: Path, content: bytes) -> None:
    (folder / "run.json").write_bytes(content)
    with pytest.raises(ClipstepError, match=r"small: cannot be read; got .*; train it again"):
        load_run(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "resnet"}, "unknown architecture; got resnet"),
        ({"config": {"classes": 4}}, "small: the weights do not fit slowfast_causal_shufflenet; got .*classifier"),
        ({"config": {"classes": 0}}, "classes is 0"),
        ({"colour": "red"}, r"small: run\.json was written by another version of clipstep; got the key colour; train it again"),
    ],
)
def test_facts_that_do_not_fit(folder: Path, values: dict[str, Any], message: str) -> None:
    _edit(folder, **values)
    with pytest.raises(ClipstepError, match=message):
        load_run(folder)


def test_an_older_run_is_replaced_whole_and_only_if_told(run: Run, folder: Path) -> None:
    (folder / "left over.txt").write_text("of the older run")
    with pytest.raises(ClipstepError, match="small: exists; replace it with --force"):
        save_run(folder, run)
    save_run(folder, replace(run, info=replace(run.info, fps=12.5), sample=run.sample[:2]), replace=True)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["small"]
    loaded = load_run(folder)
    assert loaded.info.fps == 12.5 and len(loaded.sample) == 2


def test_when_saving_fails_the_older_run_stays_and_nothing_else(run: Run, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError):
        save_run(folder, replace(run, info=replace(run.info, training={"not JSON": object()})), replace=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_when_saving_a_new_run_fails_nothing_is_left(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_run(tmp_path / "new/run", replace(run, info=replace(run.info, training={"not JSON": object()})))
    assert list(tmp_path.iterdir()) == []  # Nor the folder that was to hold it.


def test_when_the_new_run_cannot_be_put_in_place_the_older_one_is_put_back(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that cannot exchange two folders."""
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(atomic, "_exchange", lambda new, out: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk full"):
        save_run(folder, run, replace=True)
    assert torch.equal(load_run(folder).sample, run.sample) and [path.name for path in folder.parent.iterdir()] == ["small"]


def test_everyone_may_read_a_run(folder: Path) -> None:
    """safetensors writes files for the user alone."""
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666 & ~umask}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
