"""A checkpoint of the published code, built here from its own layers under its own names, computes the same as the run that it is converted to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.runtime import ClipstepError
from clipstep.training.cli import convert_command
from clipstep.training.models import build
from clipstep.training.run import load_run


class Unit(nn.Module):
    """A ShuffleNet unit as the published code names its parts."""

    def __init__(self, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        middle, branch = outputs // 4, outputs - inputs if stride == 2 else outputs
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv3d(inputs, middle, 1, groups=1 if first else 3, bias=False), nn.BatchNorm3d(middle)
        self.conv2, self.bn2 = nn.Conv3d(middle, middle, 3, stride, 1, groups=middle, bias=False), nn.BatchNorm3d(middle)
        self.conv3, self.bn3 = nn.Conv3d(middle, branch, 1, groups=3, bias=False), nn.BatchNorm3d(branch)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        n, c, *rest = y.shape
        y = y.reshape(n, 3, c // 3, *rest).transpose(1, 2).reshape(n, c, *rest)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return F.relu(torch.cat([F.avg_pool3d(F.pad(x, (1, 1, 1, 1)), (2, 3, 3), 2), y], 1) if self.stride == 2 else x + y)


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        last = 24
        for stage, (outputs, count) in enumerate(((120, 4), (240, 8), (480, 4)), 1):
            units = [Unit(last if i == 0 else outputs, outputs, 2 if i == 0 else 1, stage == 1 and i == 0) for i in range(count)]
            self.add_module(f"layer{stage}", nn.Sequential(*units))
            last = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3, 4))


class Published(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.slow_conv = nn.Sequential(
            nn.Conv3d(3, 24, (2, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            nn.BatchNorm3d(24),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.fast_conv = nn.Sequential(nn.Conv3d(3, 24, 3, 2, (0, 1, 1), bias=False), nn.BatchNorm3d(24), nn.ReLU())
        self.slow_shufflenet, self.fast_shufflenet = Stages(), Stages()
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(960, classes))

    def forward(self, frames: Tensor, slow: Tensor, fast: Tensor) -> Tensor:
        x = torch.cat([slow[:, :, None], frames[:, :, ::2]], 2)
        y = torch.cat([fast[:, :, None], F.avg_pool3d(frames, (1, 3, 3), (1, 2, 2), (0, 1, 1))], 2)
        return self.classifier(torch.cat([self.slow_shufflenet(self.slow_conv(x)), self.fast_shufflenet(self.fast_conv(y))], 1))


@pytest.fixture
def published(randomise: Any) -> Published:
    torch.manual_seed(5)
    return randomise(Published(2))


def _convert(checkpoint: Path, data: Path, out: Path) -> Any:
    return CliRunner().invoke(convert_command, [str(checkpoint), str(data), "--out", str(out), "--size", "32"], standalone_mode=False)


@pytest.mark.parametrize("form", ["bare", "parallel", "wrapped"])
@torch.no_grad()
def test_the_run_computes_what_the_checkpoints_network_computes(published: Published, form: str, tiny_data: Path, tmp_path: Path) -> None:
    state: Mapping[str, Any] = published.state_dict()
    if form != "bare":
        state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": state} if form == "wrapped" else state, tmp_path / "c.pth")
    result = _convert(tmp_path / "c.pth", tiny_data, tmp_path / "run")
    assert result.exception is None, result.output
    run = load_run(tmp_path / "run")
    inputs = torch.randn(1, 3, 16, 32, 32), torch.randn(1, 3, 32, 32), torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(run.network(*inputs)[0], published(*inputs), atol=1e-5, rtol=1e-5)
    assert run.info.labels == ("Fight", "NoFight") and len(run.sample) > 0


@pytest.mark.parametrize("classes", [2, 5])
def test_the_authors_own_checkpoints(classes: int, tiny_data: Path, tmp_path: Path) -> None:
    """As their training script saves them: DataParallel's names, the optimizer, and the best accuracy as a scalar of numpy's."""
    torch.manual_seed(5)
    network = Published(classes)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    content = {"epoch": 31, "arch": "slowfast", "state_dict": state, "best_prec1": np.float64(62.5), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "c.pth.tar")
    result = _convert(tmp_path / "c.pth.tar", tiny_data, tmp_path / "run")
    said = f"slowfast_published, {classes} classes"
    if classes == 5:
        text = str(result.exception)
        assert "classifier.weight has another shape; got (5, 960); expected (2, 960); give the data with the classes that it was trained on" in text
        assert f"it holds {said}, {tiny_data} has 2" in text and not (tmp_path / "run").exists()
    else:
        assert result.exception is None
        assert f"read {tmp_path / 'c.pth.tar'}: {said}, arch slowfast, epoch 31, best_prec1 62.5" in result.output
        weights = load_run(tmp_path / "run").network.state_dict()
        assert torch.equal(weights["classifier.weight"], state["module.classifier.1.weight"])


def test_weights_of_another_network_are_named(tiny_data: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": build("mobilenet3d", {"classes": 7, "frames": 16, "size": 32}).state_dict()}, tmp_path / "c.pth")
    result = _convert(tmp_path / "c.pth", tiny_data, tmp_path / "run")
    assert "c.pth: is of another architecture; got mobilenet3d, 7 classes; expected slowfast_published; start a training from it" in str(
        result.exception
    )


def test_a_pickle_is_never_executed(tiny_data: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"a": Evil()}, tmp_path / "c.pth")
    result = _convert(tmp_path / "c.pth", tiny_data, tmp_path / "run")
    assert isinstance(result.exception, ClipstepError) and "c.pth: cannot be read" in str(result.exception)
    assert not (tmp_path / "executed").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "c.pth: no such file; expected a checkpoint: safetensors, or what torch.save wrote"),
        (b"no zip", "c.pth: cannot be read; got "),
        ([1, 2], "c.pth: holds no state dict; got list; expected tensors by name"),
        (
            {"conv.weight": torch.zeros(1)},
            "c.pth: is of another architecture; got 590 missing: classifier.bias, classifier.weight, fast_norm.bias, fast_norm.num_batches_tracked, "
            "fast_norm.running_mean and 585 more; 1 extra: conv.weight",
        ),
        (3, "c.pth: classifier.weight has another shape; got (3, 960); expected (2, 960); give the data with the classes that it was trained on"),
    ],
)
def test_checkpoints_of_something_else(state: Any, message: str, tiny_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    if isinstance(state, bytes):
        path.write_bytes(state)
    elif state is not None:
        torch.save(Published(state).state_dict() if isinstance(state, int) else state, path)
    result = _convert(path, tiny_data, tmp_path / "run")
    assert isinstance(result.exception, ClipstepError) and message in str(result.exception)
    assert not (tmp_path / "run").exists()
