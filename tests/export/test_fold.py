"""Constants that move into convolutions: the outputs stay, the operations go."""

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export.lowering.fold import dense_weight, find_channel_shuffles, fold_batch_norms, fold_channel_shuffles, fold_constants
from clipstep.export.lowering.lower import export_whole

aten = torch.ops.aten
NORM = aten._native_batch_norm_legit_no_training.default
X = torch.randn(1, 6, 3, 5, 5, generator=torch.Generator().manual_seed(3))


class Unit(nn.Module):
    """Convolution, batch norm and, if asked for, relu and a channel shuffle."""

    def __init__(self, groups: int = 1, bias: bool = True, shuffle: int = 0, relu: bool = True, tap: str = "") -> None:
        super().__init__()
        self.conv = nn.Conv3d(6, 12, (1, 3, 3), groups=groups, bias=bias)
        self.norm = nn.BatchNorm3d(12)
        nn.init.uniform_(self.norm.running_mean, -1, 1)
        nn.init.uniform_(self.norm.running_var, 0.1, 2)
        nn.init.uniform_(self.norm.weight, -2, 2)
        nn.init.uniform_(self.norm.bias, -1, 1)
        self.shuffle, self.relu, self.tap = shuffle, relu, tap

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        conv = self.conv(x)
        norm = self.norm(conv)
        y = F.relu(norm) if self.relu else norm
        out = F.channel_shuffle(y, self.shuffle) if self.shuffle else y
        return (out, *({"conv": [conv], "relu": [y]}.get(self.tap, [])))


def export(module: nn.Module) -> fx.GraphModule:
    return export_whole(module.eval(), (X,))


def count(graph: fx.GraphModule, target: object) -> int:
    return len(graph.graph.find_nodes(op="call_function", target=target))


def assert_same(graph: fx.GraphModule, module: nn.Module) -> None:
    for value, expected in zip(graph(2 * X), module(2 * X), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_goes_into_its_convolution(groups: int, bias: bool) -> None:
    module = Unit(groups, bias)
    graph = export(module)
    assert count(graph, NORM) == 1
    fold_batch_norms(graph)
    assert (count(graph, NORM), count(graph, aten.conv3d.default)) == (0, 1)
    assert_same(graph, module)


def test_a_batch_norm_stays_if_its_convolution_has_another_user() -> None:
    module = Unit(tap="conv")
    graph = export(module)
    fold_batch_norms(graph)
    assert count(graph, NORM) == 1
    assert_same(graph, module)


def test_a_batch_norm_that_follows_no_convolution_stays() -> None:
    module = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(6), nn.Flatten())
    graph = export(module)
    fold_batch_norms(graph)
    assert count(graph, NORM) == 1
    torch.testing.assert_close(graph(X), module(X))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [2, 3, 4])
@pytest.mark.parametrize("relu", [True, False])
def test_a_channel_shuffle_goes_into_the_convolution(groups: int, shuffle: int, relu: bool) -> None:
    module = Unit(groups, shuffle=shuffle, relu=relu)
    graph = export(module)
    fold_batch_norms(graph)
    assert count(graph, aten.channel_shuffle.default) == 1
    fold_channel_shuffles(graph)
    assert (count(graph, aten.channel_shuffle.default), count(graph, aten.conv3d.default)) == (0, 1)
    assert_same(graph, module)


@pytest.mark.parametrize("tap", ["relu", "conv"])
def test_a_channel_shuffle_keeps_what_others_see(tap: str) -> None:
    module = Unit(shuffle=3, tap=tap)
    graph = export(module)
    fold_batch_norms(graph)
    fold_channel_shuffles(graph)
    assert_same(graph, module)


class Taps(nn.Module):
    """A convolution with slices of one stored weight, as lowering makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6, 2, 3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        taps = [F.conv2d(x[:, :, i], self.weight[:, :, i] * 2) for i in range(2)]
        return taps[0] + taps[1], (self.weight[0, 0, 0] + 1)


def test_what_depends_on_constants_alone_is_computed_once() -> None:
    module = Taps()
    graph = export(module)
    assert count(graph, aten.mul.Tensor) == 2
    fold_constants(graph)
    assert count(graph, aten.mul.Tensor) == 0
    assert count(graph, aten.add.Tensor) == 1
    convs = graph.graph.find_nodes(op="call_function", target=aten.conv2d.default)
    assert [conv.args[1].op for conv in convs] == ["get_attr", "get_attr"]
    assert_same(graph, module)


@pytest.mark.parametrize(("channels", "groups"), [((6, 12), 1), ((6, 12), 2), ((6, 9), 3), ((6, 6), 6)])
def test_dense_weight_does_what_the_grouped_convolution_does(channels: tuple[int, int], groups: int) -> None:
    conv = nn.Conv3d(*channels, (1, 3, 3), groups=groups, bias=False)
    dense = dense_weight(conv.weight.detach(), groups)
    assert dense.shape[:2] == channels[::-1]
    torch.testing.assert_close(F.conv3d(X, dense), conv(X).detach(), rtol=1e-5, atol=1e-5)


class ByHand(nn.Module):
    """A channel shuffle as most networks write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        n, c, *sizes = x.shape
        split = x.view(n, 3, c // 3, *sizes)
        moved = {
            "transpose": lambda: split.transpose(1, 2).contiguous(),
            "permute": lambda: split.permute(0, 2, 1, 3, 4, 5),
            "time too": lambda: split.permute(0, 2, 3, 1, 4, 5),
            "nothing": lambda: split.permute(0, 1, 2, 3, 4, 5),
        }[self.how]()
        return moved.reshape(n, c, *sizes)


@pytest.mark.parametrize(("how", "found"), [("transpose", 1), ("permute", 1), ("time too", 0), ("nothing", 0)])
def test_a_channel_shuffle_by_hand_is_found(how: str, found: int) -> None:
    graph = export_whole(ByHand(how), (X,))
    find_channel_shuffles(graph)
    assert count(graph, aten.channel_shuffle.default) == found
    torch.testing.assert_close(graph(X), ByHand(how)(X))
