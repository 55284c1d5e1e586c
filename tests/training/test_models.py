"""The other networks: the sizes that their papers and the paper's table 2 give; hand-computed parts; each can learn."""

from collections.abc import Callable, Mapping

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from clipstep.network.count import clip_macs, count_parameters
from clipstep.network.states import initial_states, outputs_of
from clipstep.runtime import ClipstepError
from clipstep.training.cli import models_command
from clipstep.training.list_models import PAPER_ROWS
from clipstep.training.models import ARCHITECTURES, HOME, build
from clipstep.training.models.r2plus1d import factored

OTHERS = [name for name in ARCHITECTURES if name != HOME]


def _build(name: str, config: Mapping[str, int]) -> nn.Module:
    with torch.device("meta"):
        return build(name, config)


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [("shufflenet3d_0.5x", 600, 0.55), ("shufflenet3d_1.0x", 600, 1.52), ("mobilenet3d", 600, 3.91), ("r2plus1d_18", 400, 33.37)],
)
def test_parameters_of_table_2(name: str, classes: int, millions: float) -> None:
    assert round(count_parameters(_build(name, {"classes": classes})) / 1e6, 2) == millions


def test_both_streams_of_i3d_are_the_tables_25_millions() -> None:
    assert round(sum(count_parameters(_build("i3d", {"classes": 400, "channels": channels})) for channels in (3, 2)) / 1e6) == 25


def test_resnet_50_has_the_layers_of_its_2d_counterpart() -> None:
    """He et al.'s ResNet-50 has 25,557,032 parameters at 1000 classes: 3x3 kernels of 16 blocks and the 7x7 stem grow by a third axis."""
    in_blocks = sum(9 * middle * middle * count for middle, count in ((64, 3), (128, 4), (256, 6), (512, 3)))
    assert count_parameters(_build("resnet3d_50", {"classes": 1000})) == 25_557_032 + 2 * in_blocks + 6 * 49 * 3 * 64


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (64, 128), (256, 512)])
def test_a_factored_convolution_has_the_weights_of_the_whole_one(inputs: int, outputs: int) -> None:
    """To rounding: one channel more between the two parts would be too many."""
    parts = [module for module in factored(inputs, outputs, 1) if isinstance(module, nn.Conv3d)]
    weights, middle = sum(part.weight.numel() for part in parts), parts[0].out_channels
    assert weights <= 27 * inputs * outputs < weights + weights // middle + 1


def test_the_published_code_has_its_size_and_arithmetic() -> None:
    network = _build("slowfast_published", {"classes": 101})
    assert count_parameters(network) == 613_661
    assert clip_macs(network) / 1e6 == pytest.approx(97.95, abs=0.005)


def test_multiply_accumulates_are_outputs_times_weights(count_multiply_accumulates: Callable[..., int]) -> None:
    network = _build("mobilenet3d", {"classes": 10}).eval()
    assert clip_macs(network) == count_multiply_accumulates(network, torch.zeros(1, 3, 16, 112, 112, device="meta"))


@torch.no_grad()
def test_the_published_networks_buffers_are_means_of_frames() -> None:
    torch.manual_seed(0)
    network = build("slowfast_published", {"classes": 3, "frames": 16, "size": 32}).eval()
    frames, slow, fast = torch.randn(2, 3, 16, 32, 32), torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16, 16)
    logits, next_slow, next_fast = network(frames, slow, fast)
    torch.testing.assert_close(next_slow, (slow + frames[:, :, ::2].sum(dim=2)) / 9)
    padded = F.pad(frames, (1, 1, 1, 1))
    small = sum(padded[..., i : i + 31 : 2, j : j + 31 : 2] for i in range(3) for j in range(3)) / 9
    torch.testing.assert_close(next_fast, (fast + small.sum(dim=2)) / 17)
    assert logits.shape == (2, 3) and not torch.allclose(network(frames, slow + 1, fast)[0], logits, atol=1e-4)
    assert not torch.allclose(network(frames, slow, fast + 1)[0], logits, atol=1e-4)


@pytest.mark.parametrize("frames", [8, 15, 24])
def test_the_published_network_refuses_what_its_shortcuts_do_not_allow(frames: int) -> None:
    with pytest.raises(ClipstepError, match=f"slowfast_published: frames is {frames} and size 112; expected multiples of 16 and 4"):
        build("slowfast_published", {"classes": 3, "frames": frames})


@pytest.mark.parametrize("name", OTHERS)
def test_each_learns_two_videos_apart(name: str) -> None:
    """A few steps on two noise clips lower their loss, and every parameter gets a gradient."""
    torch.manual_seed(0)
    frames_and_size = (16, 64) if name == "slowfast_published" else (8, 48)
    network = build(name, {"classes": 2, **dict(zip(("frames", "size"), frames_and_size, strict=True))}).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    frames, labels = torch.randn(2, 3, frames_and_size[0], *frames_and_size[1:] * 2), torch.tensor([0, 1])
    optimizer = torch.optim.Adam(network.parameters(), 0.001)
    states = [state.repeat(2, 1, 1, 1) for state in initial_states(network)]
    losses = []
    for _ in range(6):
        logits, *_ = outputs_of(network(frames, *states))
        loss = F.cross_entropy(logits, labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())
        optimizer.step()
        if losses[-1] < 0.5 * losses[0]:
            return
    pytest.fail(f"the loss stays at half or more: {losses}")


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "slowfast_published"])
@pytest.mark.parametrize("frames", [1, 2, 7])
@torch.no_grad()
def test_any_number_of_frames(name: str, frames: int) -> None:
    network = build(name, {"classes": 3, "frames": frames, "size": 33}).eval()
    assert network(torch.randn(2, 3, frames, 33, 33)).shape == (2, 3)


def test_the_list_names_every_network() -> None:
    assert {name.partition(" ")[0] for name in PAPER_ROWS} == ARCHITECTURES.keys()
    lines = CliRunner().invoke(models_command).output.splitlines()
    for name in ARCHITECTURES:
        assert sum(f"{name} " in line for line in lines) == 1 + 2 * (name == HOME)  # And fully causal, which has a remark.
    home, *_ = (line for line in lines if HOME in line)
    assert home.split() == [HOME, "101", "0.61", "0.61", "168.15"]
    assert max(map(len, lines[: lines.index(home) + len(PAPER_ROWS)])) <= 80
