"""``clipstep train --init``: a training starts from given weights, and says what it keeps of them; ``--max-steps`` ends it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import nn

from clipstep.network.videos import read_subclips
from clipstep.runtime import ClipstepError
from clipstep.training.data.lists import read_data_set
from clipstep.training.data.subclips import channel_statistics
from clipstep.training.models import build
from clipstep.training.run import Run, RunInfo, load_run, save_run
from clipstep.training.train_command import train_command

pytestmark = pytest.mark.usefixtures("shallow")

STILL = ("--epochs", "1", "--workers", "0", "--batch-size", "2", "--validation", "0", "--learning-rate", "1e-12", "--weight-decay", "0")
HEAD = ("classifier.weight", "classifier.bias")


def _train(data: Path, out: Path, *options: object) -> Any:
    return CliRunner().invoke(train_command, [str(data), "--out", str(out), *STILL, *map(str, options)], standalone_mode=False)


@pytest.fixture
def trained(clip: Path, tmp_path: Path, randomise: Callable[[nn.Module], nn.Module]) -> Callable[..., Path]:
    """``trained(classes)``: a run of a network of 8 frames of 64x64 with the smaller preset and statistics of its own."""

    def make(classes: tuple[str, ...], **config: int) -> Path:
        torch.manual_seed(5)
        config = {"classes": len(classes), "frames": 8, "size": 64, "alpha": 4, "beta": 2, **config}
        info = RunInfo("slowfast_causal_shufflenet", config, classes, (90.0, 80.0, 70.0), (50.0, 40.0, 30.0), 25.0)
        folder = tmp_path / "start"
        save_run(folder, Run(randomise(build(info.architecture, config)), info, read_subclips(clip, 8, 64)[:2]))
        return folder

    return make


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained parameters; the statistics of batch norms move even where nothing is learnt."""
    return dict(load_run(folder).network.named_parameters())


def test_the_head_is_kept_for_the_same_labels(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    """Hardly anything is learnt at that rate, so that all weights, the head's too, are still those of the run."""
    start = trained(("Fight", "NoFight"))
    result = _train(tiny_data, tmp_path / "run", "--init", start)
    assert result.exception is None, result.output
    before, after = _weights(start), _weights(tmp_path / "run")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-9, rtol=0, msg=name)
    first, info = load_run(start).info, load_run(tmp_path / "run").info
    assert dict(info.config) == dict(first.config) and (info.mean, info.std) == (first.mean, first.std)
    assert info.training["init"] == {
        "from": str(start),
        "checkpoint_sha256": first.checkpoint_sha256,
        "labels": ["Fight", "NoFight"],
        "head": "kept",
        "normalisation": "kept",
    }
    assert f"starting from {start} (trained on 2 classes): its head is kept for 2 classes, its normalisation is kept" in result.output


@pytest.mark.parametrize("classes", [("walk", "run", "jump"), ("NoFight", "Fight")])
def test_other_classes_get_a_new_head(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path], classes: tuple[str, ...]) -> None:
    """Other names, and also the same ones in another order: the old head's rows would stand for other classes."""
    start = trained(classes)
    result = _train(tiny_data, tmp_path / "run", "--init", start)
    assert result.exception is None, result.output
    before, after = _weights(start), _weights(tmp_path / "run")
    for name, value in before.items():
        if name in HEAD:
            assert after[name].shape != value.shape or not torch.allclose(after[name], value, atol=1e-3)
        else:
            torch.testing.assert_close(after[name], value, atol=1e-9, rtol=0, msg=name)
    run = load_run(tmp_path / "run")
    assert run.info.labels == ("Fight", "NoFight") and run.info.config["classes"] == 2 and run.info.training["init"]["head"] == "replaced"
    assert f"(trained on {len(classes)} classes): its head is replaced by a new one for 2 classes" in result.output


def test_another_number_of_frames_and_size(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    result = _train(tiny_data, tmp_path / "run", "--init", trained(("Fight", "NoFight")), "--frames", "16", "--size", "96", "--preset", "a2b1")
    assert result.exception is None, result.output
    run = load_run(tmp_path / "run")
    assert dict(run.info.config) == {"classes": 2, "frames": 16, "size": 96, "alpha": 2, "beta": 1} and run.sample.shape[1:3] == (16, 96)


def test_a_file_of_weights_has_no_labels_or_normalisation(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    """As another program writes it: its head is kept where the number of classes fits; colours are measured anew."""
    start = trained(("a", "b"))
    torch.save({"state_dict": {f"module.{name}": value for name, value in load_run(start).network.state_dict().items()}}, tmp_path / "theirs.pth")
    result = _train(tiny_data, tmp_path / "run", "--init", tmp_path / "theirs.pth", "--size", "64")
    assert result.exception is None, result.output
    torch.testing.assert_close(_weights(tmp_path / "run")["classifier.weight"], _weights(start)["classifier.weight"], atol=1e-9, rtol=0)
    info = load_run(tmp_path / "run").info
    assert (info.mean, info.std) == tuple(map(tuple, channel_statistics(read_data_set(tiny_data).train, 16, 64)))
    assert (info.training["init"]["head"], info.training["init"]["normalisation"], info.training["init"]["labels"]) == ("kept", "measured", None)
    assert "(a file without class names): its head is kept for 2 classes, the normalisation is measured on the training videos" in result.output


def test_a_file_of_a_backbone_alone(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    weights = {name: value for name, value in load_run(trained(("a", "b", "c"))).network.state_dict().items() if name not in HEAD}
    safetensors.torch.save_file(weights, tmp_path / "backbone.safetensors")
    result = _train(tiny_data, tmp_path / "run", "--init", tmp_path / "backbone.safetensors", "--size", "64")
    assert result.exception is None, result.output
    assert load_run(tmp_path / "run").info.training["init"]["head"] == "replaced"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--architecture", "mobilenet3d"), "start: is of another architecture; got slowfast_causal_shufflenet; expected mobilenet3d; leave"),
        (("--input", "flow"), r"start: .*stem\.weight has another shape; got \(12, 3, 3, 3, 3\); expected \(12, 2, 3, 3, 3\)"),
        (("--preset", "a2b1", "--architecture", "i3d"), "i3d has no presets"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path], options: tuple[str, ...], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        raise _train(tiny_data, tmp_path / "run", "--init", trained(("Fight", "NoFight")), *options).exception
    assert not (tmp_path / "run").exists()


def test_a_stopped_training_and_nothing_at_all_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped/checkpoint.safetensors").write_bytes(b"")
    for name, message in (("stopped", "holds a training that was stopped; finish it with --resume first"), ("nowhere", "no such run or file")):
        with pytest.raises(ClipstepError, match=message):
            raise _train(tiny_data, tmp_path / "run", "--init", tmp_path / name).exception


def test_a_training_resumes_only_with_the_same_initial_weights(tiny_data: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    start = trained(("Fight", "NoFight"))
    first = _train(tiny_data, tmp_path / "run", "--init", start, "--epochs", "2", "--max-steps", "1")
    assert first.exception is None, first.output
    with pytest.raises(ClipstepError, match=r"belongs to another training; .*init"):
        raise _train(tiny_data, tmp_path / "run", "--epochs", "2", "--resume", "--frames", "8", "--size", "64", "--preset", "a4b2").exception
    second = _train(tiny_data, tmp_path / "run", "--init", start, "--epochs", "2", "--resume")
    assert second.exception is None and "resuming after epoch 1 of 2" in second.output, second.output


def test_max_steps_ends_the_training(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two videos in batches of one are two steps an epoch; the third step is the first of the second epoch."""
    steps = 0
    step = torch.optim.AdamW.step

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(*args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", count)
    options = ("--frames", "8", "--size", "48", "--epochs", "4", "--batch-size", "1")
    result = _train(tiny_data, tmp_path / "run", *options, "--max-steps", "3")
    assert result.exception is None, result.output
    assert "epoch 1/2  loss" in result.output and "epoch 2/2  loss" in result.output
    with (tmp_path / "run/log.csv").open() as file:
        assert [row["complete"] for row in csv.DictReader(file)] == ["True", "False"]
    training = json.loads((tmp_path / "run/run.json").read_text())["training"]
    assert steps == 3 and (training["max_steps"], training["epochs_done"]) == (3, 1)
    more = _train(tiny_data, tmp_path / "run", *options, "--max-steps", "4", "--resume")
    assert more.exception is None and "resuming after epoch 1 of 4" in more.output
    assert steps == 5 and json.loads((tmp_path / "run/run.json").read_text())["training"]["epochs_done"] == 2
