"""The passes: the outputs stay the same, and the folded operations are gone."""

import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export.lowering.lower import export_whole, lower, lower_graph, simplified
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.lowering.passes import (
    find_channel_shuffles,
    fold_batch_norms,
    fold_channel_shuffles,
    fold_constants,
    fold_paddings,
    fold_scales,
    fold_temporal_strides,
    join_clips,
    join_reshapes,
    merge_duplicates,
    move_relus,
    sink_channel_shuffles,
)
from clipstep.export.targets import onnx
from clipstep.export.targets.onnx_model import onnx_model

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
def test_a_batch_norm_is_folded_into_its_convolution(groups: int, bias: bool) -> None:
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


@pytest.mark.parametrize("shuffle", [2, 3, 4])
@pytest.mark.parametrize("relu", [True, False])
def test_a_channel_shuffle_is_folded_into_the_convolution_before_it(shuffle: int, relu: bool) -> None:
    module = Unit(shuffle=shuffle, relu=relu)
    graph = export(module)
    fold_batch_norms(graph)
    assert count(graph, aten.channel_shuffle.default) == 1
    fold_channel_shuffles(graph)
    assert (count(graph, aten.channel_shuffle.default), count(graph, aten.conv3d.default)) == (0, 1)
    assert_same(graph, module)


@pytest.mark.parametrize("tap", ["relu", "conv"])
def test_a_channel_shuffle_stays_if_its_convolution_has_another_user(tap: str) -> None:
    module = Unit(shuffle=3, tap=tap)
    graph = export(module)
    fold_batch_norms(graph)
    fold_channel_shuffles(graph)
    assert_same(graph, module)


def test_a_channel_shuffle_stays_after_a_grouped_convolution() -> None:
    """Folded, the convolution would have to be dense: its arithmetic and weights multiplied by the number of groups."""
    module = Unit(groups=2, shuffle=3)
    graph = export(module)
    fold_batch_norms(graph)
    fold_channel_shuffles(graph)
    assert count(graph, aten.channel_shuffle.default) == 1
    assert_same(graph, module)


class ShuffledDepthwise(nn.Module):
    """A channel shuffle, then a convolution of a number of groups that multiplies the channels."""

    def __init__(self, groups: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(6, out_channels, 3, stride=2, padding=1, groups=groups)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.conv(F.channel_shuffle(x, 3)),)


@pytest.mark.parametrize(("groups", "out_channels", "moved"), [(6, 6, True), (6, 12, False), (3, 6, False), (1, 6, False)])
def test_a_channel_shuffle_moves_after_a_depthwise_convolution(groups: int, out_channels: int, moved: bool) -> None:
    module = ShuffledDepthwise(groups, out_channels)
    graph = export(module)
    sink_channel_shuffles(graph)
    (shuffle,) = graph.graph.find_nodes(op="call_function", target=aten.channel_shuffle.default)
    assert (shuffle.args[0].target == aten.conv3d.default) == moved
    assert_same(graph, module)


@pytest.mark.parametrize(
    ("amounts", "options", "folded"),
    [
        ((1, 1, 1, 1, 1, 1), {}, True),
        ((2, 2, 0, 0), {}, True),
        ((1, 1, 1, 1, 0, 1), {}, False),
        ((1, 1, 1, 1, 1, 1), {"value": 1.0}, False),
        ((1, 1, 1, 1, 1, 1), {"mode": "replicate"}, False),
        ((-1, -1, 1, 1), {}, True),  # What is cut off is a slice by then.
    ],
)
@pytest.mark.parametrize("pool", [{}, {"divisor_override": 5}, {"count_include_pad": False}])
def test_a_padding_with_zeros_is_folded_into_the_average_pool(amounts: tuple[int, ...], options: dict, folded: bool, pool: dict) -> None:
    module = Pooled(amounts, options, {"stride": 2, **pool})
    graph = export_whole(module, (X[0],))
    fold_paddings(graph)
    assert count(graph, aten.pad.default) == (0 if folded else 1)
    torch.testing.assert_close(lower(module, (X[0],), onnx.PROFILE)(2 * X[0]), module(2 * X[0]), rtol=1e-5, atol=1e-5)


def test_a_padding_stays_before_a_pool_that_pads_too() -> None:
    module = Pooled((1, 1, 1, 1, 1, 1), {}, {"padding": 1, "count_include_pad": False})
    graph = export_whole(module, (X[0],))
    fold_paddings(graph)
    assert count(graph, aten.pad.default) == 1
    torch.testing.assert_close(lower(module, (X[0],), onnx.PROFILE)(2 * X[0]), module(2 * X[0]), rtol=1e-5, atol=1e-5)


class Pooled(nn.Module):
    """An average pool of 3 after a padding; inputs and outputs are of rank 4."""

    def __init__(self, amounts: tuple[int, ...], padding: dict, pool: dict) -> None:
        super().__init__()
        self.amounts, self.padding, self.pool = amounts, padding, pool

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool3d(F.pad(x[None], self.amounts, **self.padding), 3, **self.pool)[0]


class Taps(nn.Module):
    """A convolution with slices of one stored weight, as lowering makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6, 2, 3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        taps = [F.conv2d(x[:, :, i], self.weight[:, :, i] * 2) for i in range(2)]
        return taps[0] + taps[1], (self.weight[0, 0, 0] + 1)


def test_constant_expressions_are_folded() -> None:
    module = Taps()
    graph = export(module)
    assert count(graph, aten.mul.Tensor) == 2
    fold_constants(graph)
    assert count(graph, aten.mul.Tensor) == 0
    assert count(graph, aten.add.Tensor) == 1
    convs = graph.graph.find_nodes(op="call_function", target=aten.conv2d.default)
    assert [conv.args[1].op for conv in convs] == ["get_attr", "get_attr"]
    assert_same(graph, module)


class Doubles(nn.Module):
    """Operations on float64 that onnxruntime has no kernels for, and a constant that is computed in float64."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        wide = x.double()
        steps = torch.linspace(0, 1, x.shape[-1], dtype=torch.float64).cumsum(0)
        pooled = F.avg_pool3d(F.pad(wide.atan(), (1, 1)), 2) * 2
        return (wide * steps).float()[0], F.interpolate(wide.clamp(0, 1)[:, :, 0], scale_factor=2).to(torch.float32), pooled.float()[0]


def test_doubles_are_computed_in_float32() -> None:
    module = Doubles()
    graph = simplified(module, (X,))
    assert not any(getattr(node.meta.get("val"), "dtype", None) == torch.float64 for node in graph.graph.nodes)
    assert_same(graph, module)
    session = InferenceSession(onnx_model(lower_graph(graph, (X,), onnx.PROFILE), ["x"], ["a", "b", "c"]).SerializeToString())
    for got, expected in zip(session.run(None, {"x": X.numpy()}), module(X), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), expected)


class Twice(nn.Module):
    """The same slice twice, another one, and two equal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.ones(6, 6, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (F.conv2d(x[:, :, 1], self.first) + F.conv2d(x[:, :, 1], self.second) - x[:, :, 2],)


def test_equal_operations_and_constants_are_merged() -> None:
    module = Twice()
    graph = export(module)
    assert (count(graph, aten.select.int), count(graph, aten.conv2d.default)) == (3, 2)
    merge_duplicates(graph)
    assert (count(graph, aten.select.int), count(graph, aten.conv2d.default)) == (2, 1)
    assert len(list(graph.buffers())) + len(list(graph.parameters())) == 1
    assert_same(graph, module)


def test_not_all_parts_of_a_concatenation_are_merged() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x + 1, x + 1, x + 1], 1)

    graph = export(Both())
    merge_duplicates(graph)
    (cat,) = graph.graph.find_nodes(op="call_function", target=aten.cat.default)
    assert len(cat.all_input_nodes) == 2
    assert_same(graph, Both())


class Reshaped(nn.Module):
    """Reshapes before and after what is done to each element, or, `other`, to more than that. Those of a value of rank 5 stay."""

    def __init__(self, other: bool) -> None:
        super().__init__()
        self.other = other

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        frames = x[0]
        changed = F.relu(frames.reshape(18, 25)) * 2 + (torch.arange(25.0) if self.other else 1)
        of_rank_5 = F.relu(x.reshape(18, 25)).reshape(9, 50)
        return changed.reshape(6, 75), F.hardtanh(frames.reshape(9, 50)).unsqueeze(1), of_rank_5


@pytest.mark.parametrize(("other", "reshapes"), [(False, 4), (True, 5)])
def test_reshapes_around_what_is_done_to_each_element_are_joined(other: bool, reshapes: int) -> None:
    graph = export(Reshaped(other))
    fold_constants(graph)
    join_reshapes(graph)
    assert sum(node.target in RESHAPES for node in graph.graph.nodes) == reshapes
    assert_same(graph, Reshaped(other))


def test_a_reshape_that_is_read_twice_stays() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            rows = x[0].reshape(18, 25)
            return F.relu(rows).reshape(6, 75), rows.sum(1)

    graph = export(Twice())
    join_reshapes(graph)
    assert count(graph, aten.view.default) == 2
    assert_same(graph, Twice())


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
def test_a_channel_shuffle_of_reshapes_and_a_transposition_is_found(how: str, found: int) -> None:
    graph = export_whole(ByHand(how), (X,))
    find_channel_shuffles(graph)
    assert count(graph, aten.channel_shuffle.default) == found
    torch.testing.assert_close(graph(X), ByHand(how)(X))


class EverySecond(nn.Module):
    """A convolution of every n-th frame of eleven."""

    def __init__(self, start: int, step: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.start, self.step = start, step
        self.conv = nn.Conv3d(6, 4, (kernel, 1, 1), (stride, 1, 1), (padding, 0, 0))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.conv(torch.cat([x, -x, x, 3 * x[:, :, :2]], 2)[:, :, self.start :: self.step]),)


@pytest.mark.parametrize(
    ("settings", "folded"),
    [((0, 2, 3, 1, 1), True), ((0, 2, 2, 2, 0), True), ((0, 3, 3, 1, 1), True), ((1, 2, 3, 1, 1), False), ((0, 1, 3, 1, 1), False)],
)
def test_a_slice_of_every_nth_frame_is_folded_into_the_stride(settings: tuple[int, ...], folded: bool) -> None:
    module = EverySecond(*settings)
    graph = export(module)
    fold_temporal_strides(graph)
    (conv,) = graph.graph.find_nodes(op="call_function", target=aten.conv3d.default)
    assert (conv.args[0].target == aten.cat.default) == folded or settings[1] == 1
    assert_same(graph, module)


class Scaled(nn.Module):
    """Frames `(T, H, W, C)` that are scaled and shifted, permuted, and read by convolutions."""

    def __init__(self, factor: Tensor, other: bool = False) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.register_buffer("shift", torch.randn(30))
        self.first, self.second = nn.Conv3d(6, 4, 3, padding=1), nn.Conv3d(6, 2, 1, bias=False)
        self.other = other

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = x.permute(0, 2, 3, 4, 1).reshape(1, 3, 5, 30) * self.factor + self.shift
        y = rows.reshape(1, 3, 5, 5, 6).permute(0, 4, 1, 2, 3)
        return (self.first(y), self.second(y[:, :, 1:]), *([y.relu()] if self.other else []))


@pytest.mark.parametrize(
    ("factor", "other", "folded"),
    [
        (torch.arange(1.0, 7.0).repeat(5), False, True),
        (torch.arange(1.0, 7.0).repeat(5), True, False),  # Another operation reads the scaled numbers.
        (torch.arange(1.0, 31.0), False, False),  # A channel has several scales.
        (torch.arange(6.0).repeat(5), False, False),  # A scale of zero cannot be divided by.
    ],
)
def test_a_scale_is_folded_into_the_weights(factor: Tensor, other: bool, folded: bool) -> None:
    module = Scaled(factor, other)
    graph = export(module)
    fold_scales(graph)
    assert (count(graph, aten.mul.Tensor) == 0) == folded
    assert_same(graph, module)


class Relus(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.pool = nn.Conv3d(6, 4, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.conv(x)
        if self.how == "cat":
            return (F.relu(torch.cat([y, F.avg_pool3d(x, 1)], 1)),)
        if self.how == "cat of an input":
            return (F.relu(torch.cat([y, x], 1)),)
        if self.how == "pool":
            return self.pool(F.relu(y)), y.exp()
        return (self.pool(F.relu(y)),)


@pytest.mark.parametrize(
    ("how", "before_relu"), [("cat", "conv3d"), ("cat of an input", "cat"), ("pool", "max_pool3d"), ("pool of a sole user", "conv3d")]
)
def test_a_relu_moves_to_where_it_costs_least(how: str, before_relu: str) -> None:
    module = Relus(how)
    graph = export(module)
    move_relus(graph)
    relus = graph.graph.find_nodes(op="call_function", target=aten.relu.default)
    assert before_relu in relus[0].args[0].name and len(relus) == (2 if how == "cat" else 1)
    assert_same(graph, module)


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        (nn.Conv3d(6, 6, 3, padding=1, groups=6), 1),
        (nn.Conv3d(6, 4, (1, 3, 3), groups=2), 1),
        (nn.Conv3d(6, 4, (1, 3, 3), stride=(2, 1, 1), bias=False), 3),
        (nn.Conv3d(6, 4, 3, padding=1), 3),
    ],
)
def test_operators_on_clips_become_operators_on_one(convolution: nn.Module, expected: int) -> None:
    """Of three clips: a depthwise convolution and one without temporal taps stay one."""

    class Clips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = convolution

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (F.max_pool3d(self.convolution(torch.cat([x, 2 * x, -x])), (1, 2, 2)),)

    network = Clips()
    graph = export(network)
    join_clips(graph)
    assert_same(graph, network)
    assert count(graph, aten.conv3d.default) == expected and count(graph, aten.max_pool3d.default) == 1
    assert all(len(node.args[0].meta["val"]) == 1 for node in graph.graph.find_nodes(op="call_function", target=aten.conv3d.default))
