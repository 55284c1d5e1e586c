"""Tiny networks with statistics that are not the identity; a tiny data set; broken videos."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from clipstep.training.models import build

FIGHT = Path(__file__).parents[2] / "training/demo/fight"


@pytest.fixture(scope="session")
def fight() -> Path:
    """Real clips in UCF101's layout, two classes."""
    return FIGHT


@pytest.fixture(scope="session")
def few_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four training videos and the first test video of each class: four groups to split, and soon trained on."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "videos").symlink_to(FIGHT / "videos")
    shutil.copy(FIGHT / "classInd.txt", folder)
    for name, count in (("trainlist01.txt", 4), ("testlist01.txt", 1)):
        lines = (FIGHT / name).read_text().splitlines(keepends=True)
        kept = [line for label in ("Fight/", "NoFight/") for line in [line for line in lines if line.startswith(label)][:count]]
        (folder / name).write_text("".join(kept))
    return folder


@pytest.fixture
def small_network(randomise: Callable[[nn.Module], nn.Module]) -> Callable[..., nn.Module]:
    """``small_network(frames=4, size=32, ...)``: three classes, random weights and statistics, eval mode."""

    def make(**config: int) -> nn.Module:
        torch.manual_seed(3)
        network = build("slowfast_causal_shufflenet", {"classes": 3, "frames": 4, "size": 32, **config})
        return randomise(network)

    return make


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """Two training and two test videos of the real ones, copied so that a test may break them."""
    folder = tmp_path / "data"
    train, test = ("Fight/v_Fight_g02_c01.mp4", "NoFight/v_NoFight_g02_c01.mp4"), ("Fight/v_Fight_g13_c01.mp4", "NoFight/v_NoFight_g13_c01.mp4")
    for name in (*train, *test):
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIGHT / "videos" / name, folder / "videos" / name)
    (folder / "classInd.txt").write_text("1 Fight\n2 NoFight\n")
    (folder / "trainlist01.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(train, 1)))
    (folder / "testlist01.txt").write_text("".join(f"{name}\n" for name in test))
    return folder


@pytest.fixture(scope="session")
def count_multiply_accumulates() -> Callable[..., int]:
    """``count(network, *inputs)``: of all convolutions and linear layers in one forward pass, outputs times the weights that each one takes."""

    def count_all(network: nn.Module, *inputs: torch.Tensor) -> int:
        total = 0

        def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
            nonlocal total
            total += output.numel() * module.weight[0].numel()

        hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.Conv3d | nn.Linear)]
        with torch.no_grad():
            network(*inputs)
        for hook in hooks:
            hook.remove()
        return total

    return count_all


@pytest.fixture
def fake_videos(tmp_path: Path) -> Callable[..., Path]:
    """``fake_videos("A/1.mp4", ..., lists={"train.csv": "..."})``: a data folder of files that are called like videos, each of a content of its own.

    Lists are text, or bytes of another encoding.
    """

    def make(*names: str, lists: dict[str, str | bytes] | None = None) -> Path:
        folder = tmp_path / "data"
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"the video {name}")
        for name, text in (lists or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return make
