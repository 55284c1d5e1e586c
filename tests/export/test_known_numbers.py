"""What torch.export loses by itself: numbers of a network's own buffers and parameters, which no step changes, `.data`, and `torch.vmap`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipstep.export.lowering.lower import LoweringError, lower
from clipstep.export.targets import onnx

X = (6, 4, 5, 5)


class Reading(nn.Module):
    """Calls a function of itself and of a value `(1, 6, 4, 5, 5)`."""

    def __init__(self, function: Callable[["Reading", Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("count", torch.tensor(2))
        self.register_buffer("mask", torch.tensor([True, False, True, True, False, False]))
        self.register_buffer("grid", torch.tensor([[True, False, False, False, True]] * 5))
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        y = self.function(self, x[None])
        return (y.flatten(0, y.ndim - 4) if y.ndim > 4 else y,)


def assigned(network: Reading, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ~network.mask] = 0.5
    return y


READ: dict[str, Callable[[Reading, Tensor], Tensor]] = {
    "a float": lambda net, x: x / float(net.scale),
    "an item": lambda net, x: x * net.scale.item(),
    "an integer": lambda net, x: x.roll(int(net.count), 2),
    "a bound of a slice": lambda net, x: torch.cat([x[:, :, : net.count] * 2, x[:, :, int(net.count) :]], 2),
    "a size": lambda net, x: x.reshape(1, int(net.count), 3, 4, 25)[0],
    "a condition": lambda net, x: x * 2 if net.scale > 0.5 else x,
    "a condition of several": lambda net, x: x * 2 if bool((net.mask.float() * net.scale).sum() > 2) and net.mask.any() else x,
    "a list": lambda net, x: sum((x * i for i, wanted in enumerate(net.mask.tolist()) if wanted), x),
    "a mask": lambda net, x: torch.cat([x[:, net.mask], x[:, ~net.mask] * 2], 1),
    "a mask of frames": lambda net, x: x[0, 0][:, net.grid],
    "a mask of the first axis": lambda net, x: x[0][net.mask],
    "an assignment by a mask": assigned,
    "places": lambda net, x: x.index_select(1, net.mask.nonzero().flatten()) + x[:, net.mask.nonzero(as_tuple=True)[0]],
    "data of a buffer": lambda net, x: x[:, net.mask.data] * float(net.scale.data),
    "how many numbers": lambda net, x: x * torch.unique(net.mask).numel(),
}


@torch.no_grad()
@pytest.mark.parametrize("name", READ)
def test_numbers_of_a_network_are_known(name: str) -> None:
    network, x = Reading(READ[name]).eval(), torch.randn(X)
    lowered = lower(network, (x,), onnx.PROFILE)
    torch.testing.assert_close(lowered(x + 1), network(x + 1))


def written_data(network: Reading, x: Tensor) -> Tensor:
    y = x * 2
    y.data[:, :3] += 1
    y.data.clamp_(-1, 1)
    return y + x.data


def assigned_data(network: Reading, x: Tensor) -> Tensor:
    y = x.clone()
    y.data = x * 2
    return y


@torch.no_grad()
def test_data_of_frames_is_the_tensor_itself() -> None:
    """torch.export loses what is computed of it."""
    network, x = Reading(written_data).eval(), torch.randn(X)
    torch.testing.assert_close(lower(network, (x,), onnx.PROFILE)(x + 1), network(x + 1))


def test_an_assignment_to_data_is_refused_with_its_line() -> None:
    """torch.export captures the numbers of before."""
    line = assigned_data.__code__.co_firstlineno + 2
    with pytest.raises(
        LoweringError, match=rf"^no lowering for an assignment to the .data of a tensor; it comes from .*{Path(__file__).name}.*{line}"
    ):
        lower(Reading(assigned_data).eval(), (torch.randn(X),), onnx.PROFILE)


def computed_into(network: Reading, x: Tensor) -> Tensor:
    several = network.scale.repeat(1)
    torch.add(x.sum().reshape(1), 1.0, out=several)
    return x * 2 if several > 0.5 else x


def changed(network: Reading, x: Tensor) -> Tensor:
    several = network.scale.repeat(2)
    several[0] += x.sum() * 0
    return x * 2 if several[0] > 0.5 else x


@pytest.mark.parametrize("function", [lambda net, x: x * 2 if x.sum() > net.scale else x, changed, computed_into])
def test_numbers_of_the_frames_are_not(function: Callable[[Reading, Tensor], Tensor]) -> None:
    with pytest.raises(LoweringError, match="expected operations that do not depend on the numbers in a tensor"):
        lower(Reading(function).eval(), (torch.randn(X),), onnx.PROFILE)


def test_the_tensors_of_a_network_are_not_looked_through_for_each_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export calls hundreds of functions for each tensor of a network before it traces it."""
    walks, own = [], nn.Module.named_parameters

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        walks.extend([self] if isinstance(self, Reading) else [])
        return own(self, *args, **kwargs)

    def walks_of(layers: int) -> int:
        network = Reading(lambda net, x: net.layers(x) * int(net.count))
        network.layers = nn.Sequential(*(nn.BatchNorm3d(X[0]) for _ in range(layers)))
        walks.clear()
        lower(network.eval(), (torch.randn(X),), onnx.PROFILE)
        return len(walks)

    monkeypatch.setattr(nn.Module, "named_parameters", counted)
    assert walks_of(20) == walks_of(2)


def several_results(network: Reading, x: Tensor) -> Tensor:
    scaled, means = torch.vmap(lambda v, by: (v * by, v.mean(1)), (1, 0), (1, -1), chunk_size=2)(x, torch.arange(6.0))
    return scaled + means.permute(0, 3, 1, 2)[:, :, None]


VMAPPED: dict[str, Callable[[Reading, Tensor], Tensor]] = {
    "frames": lambda net, x: torch.vmap(lambda frame: frame * frame.mean(), in_dims=2, out_dims=2)(x),
    "one inside another": lambda net, x: torch.vmap(torch.vmap(lambda v: v.softmax(0), 1, 1), 1, 1)(x),
    "dictionaries": lambda net, x: torch.vmap(lambda both: {"y": both["a"] * 2 + both["b"]}, ({"a": 2, "b": None},), 2)({"a": x, "b": x[:, :, 0]})[
        "y"
    ],
    "several results": several_results,
    "a result of none of them": lambda net, x: torch.vmap(lambda v: (v, net.scale * 2), 1, (1, None))(x)[1] * x,
}


@torch.no_grad()
@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_is_a_loop(name: str) -> None:
    network, x = Reading(VMAPPED[name]).eval(), torch.randn(X)
    torch.testing.assert_close(lower(network, (x,), onnx.PROFILE)(x + 1), network(x + 1))
