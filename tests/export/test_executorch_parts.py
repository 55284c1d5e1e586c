"""How a step is split between XNNPACK and ExecuTorch's portable kernels, and what runs there, against torch."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower
from clipstep.export.lowering.passes import fold_constants
from clipstep.export.targets import executorch, executorch_writer
from clipstep.export.targets.executorch_parts import split
from clipstep.export.targets.xnnpack_operations import OPERATORS as XNNPACK_OPERATORS
from clipstep.runtime.bundle.manifest import Placement
from clipstep.runtime.errors import ClipstepError


def written(graph: fx.GraphModule, inputs: tuple[Tensor, ...], folder: Path) -> Placement:
    program: Any = SimpleNamespace(inputs=inputs)
    return executorch_writer.write(graph, program, "float32", "{}", folder / "step.pte")


def ran(folder: Path, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return list(portable_lib._load_for_executorch(str(folder / "step.pte")).forward(list(inputs)))


def traced(function: Callable[..., Any], *inputs: Tensor) -> fx.GraphModule:
    graph = make_fx(lambda *values: (result,) if isinstance(result := function(*values), Tensor) else result, pre_dispatch=True)(*inputs)
    fold_constants(graph)
    return graph


def checked(function: Callable[..., Any], inputs: tuple[Tensor, ...], folder: Path) -> Placement:
    """Write a function and compare what ExecuTorch computes with what torch does."""
    graph = traced(function, *inputs)
    placement = written(graph, inputs, folder)
    for got, expected in zip(ran(folder, inputs), graph(*inputs), strict=True):
        assert got.shape == expected.shape and got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    return placement


def operators(placement: Placement) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in placement.reasons:
        counts[one.operator] = counts.get(one.operator, 0) + one.count
    return counts


def weight(*shape: int) -> Tensor:
    return (torch.arange(1, 1 + math.prod(shape)) * 1.7).sin().reshape(shape)


class Cnn(nn.Module):
    """Convolutions of frames, then `middle` on the features `(1, frames, 8)`."""

    def __init__(self, middle: nn.Module | Callable[[Tensor], Tensor], features: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.middle = middle
        self.head = nn.Linear(features, 3)

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        features = self.convolution(frames.float().permute(0, 3, 1, 2) / 255).flatten(1)[None]
        found = self.middle(features)
        return (self.head(found[0] if isinstance(found, tuple) else found).mean(1),)


SELF_ATTENTION = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
NETWORKS: dict[str, tuple[Callable[[], Cnn], int, set[str]]] = {
    "LSTM": (lambda: Cnn(nn.LSTM(8, 8, batch_first=True)), 1, set()),
    "GRU": (lambda: Cnn(nn.GRU(8, 8, num_layers=2, batch_first=True)), 1, set()),
    "transformer": (lambda: Cnn(SELF_ATTENTION), 1, set()),
    "sort": (lambda: Cnn(lambda x: x.sort(1)[0]), 2, {"aten.topk"}),
    "comparisons and where": (lambda: Cnn(lambda x: torch.where((x > 0.1) & (x < 0.5), x, -x)), 2, {"aten.gt.Scalar", "aten.lt.Scalar"}),
    "gather": (lambda: Cnn(lambda x: x.gather(1, x.argsort(1))), 2, {"aten.topk", "aten.gather"}),
    "index": (lambda: Cnn(lambda x: x[:, [2, 0, 0, 1]]), 1, set()),
    "argmax": (lambda: Cnn(lambda x: x * x.argmax(1, keepdim=True)), 2, {"aten.argmax"}),
    "cumsum": (lambda: Cnn(lambda x: x.cumsum(1)), 1, set()),
    "computed weights": (lambda: Cnn(lambda x: F.linear(x, x[0, :8].softmax(-1).repeat(2, 1))), 1, set()),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # Of `torch.export`, about the weights of recurrent layers.
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_cut_only_where_xnnpack_lacks_an_operator(name: str, tmp_path: Path) -> None:
    make, calls, outside = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval()
    frames = torch.randint(256, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    placement = written(lower(network, (frames,), executorch.PROFILE), (frames,), tmp_path)
    torch.testing.assert_close(ran(tmp_path, (frames,))[0], network(frames)[0], rtol=1e-4, atol=1e-5)
    assert len(placement.delegated) == calls
    assert outside <= operators(placement).keys()
    assert calls > 1 or not placement.not_delegated


def test_reasons_and_the_names_of_nodes_are_said(tmp_path: Path) -> None:
    placement = checked(
        lambda x: F.conv2d(F.conv2d(x, weight(4, 2, 1, 1)).topk(4, 1)[0].round(), weight(2, 4, 1, 1)), (weight(1, 2, 5, 5),), tmp_path
    )
    assert list(placement.delegated) == ["XnnpackBackend", "XnnpackBackend1"]
    assert placement.not_delegated == ("aten::topk", "aten::round")
    assert [(one.operator, one.count, one.reason) for one in placement.reasons] == [
        ("aten.topk", 1, "XNNPACK has no such operator"),
        ("aten.round", 1, "XNNPACK has no such operator"),
    ]
    nodes = [f"{count} node{'s' * (count != 1)} in {name}" for name, count in placement.delegated.items()]
    assert placement.summary() == ", ".join([*nodes, "2 delegate calls", "outside: aten.topk, aten.round (XNNPACK has no such operator)"])


def test_a_placement_of_an_older_bundle_names_what_is_outside() -> None:
    placement = Placement(delegated={"XnnpackBackend": 3}, not_delegated=("aten::sort", "aten::add", "aten::sort"))
    assert placement.summary() == "3 nodes in XnnpackBackend, outside: aten::sort x 2, aten::add"
    assert Placement(delegated={"XnnpackBackend": 1}, not_delegated=()).summary() == "1 node in XnnpackBackend"


def parts_of(function: Callable[..., Any], refused: set[str], *inputs: Tensor) -> tuple[int, list[str]]:
    """Return the number of parts if XNNPACK did not take the operators named, and the names of the operations outside."""
    graph = traced(function, *inputs)
    found = split(graph, {node: "refused" for node in graph.graph.nodes if str(node.target).split(".")[-2:][0] in refused})
    return found.count, [str(node.target).split(".")[1] for node in found.outside]


def test_values_that_wait_for_the_same_operation_are_one_part() -> None:
    """However many are computed, and connected or not."""

    def function(x: Tensor) -> Tensor:
        return torch.cat([(x + i).round() * i for i in range(5)]).exp()

    assert parts_of(function, {"round"}, weight(2, 3)) == (2, ["round"] * 5)


def test_the_longest_chain_of_changes_is_the_number_of_parts() -> None:
    assert parts_of(lambda x: ((x + 1).round() + 1).round() + x.round(), {"round"}, weight(2, 3))[0] == 3


def test_data_movement_stays_outside_only_between_operations_outside() -> None:
    def function(x: Tensor) -> Tensor:
        return (x.transpose(0, 1) + 1).round().reshape(2, 3).round().reshape(6) + 1

    assert parts_of(function, {"round"}, weight(2, 3)) == (2, ["round", "reshape", "round"])


def test_movement_of_inputs_that_xnnpack_alone_needs_is_its_own() -> None:
    assert parts_of(lambda x, y: x.reshape(3, 2) + 1 + y.round(), {"round"}, weight(6), weight(3, 2)) == (1, ["round"])


def test_numbers_whole_numbers_and_inputs_pass_between_parts(tmp_path: Path) -> None:
    """Values of rank 0 are vectors for XNNPACK; inputs and constants are returned as they are, and one value twice."""

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        mean = x.exp().mean((0, 1))
        high = (mean * 3).round()
        return high, x * high, y + 1, y, x, torch.ones(3) * 2, high - mean, x * high

    placement = checked(function, (weight(2, 3), torch.arange(4)), tmp_path)
    assert len(placement.delegated) == 2


def test_a_step_without_anything_for_xnnpack_is_written(tmp_path: Path) -> None:
    assert checked(lambda x: x.round(), (weight(2, 3),), tmp_path).delegated == {}


PRODUCTS_OF_ALL_SETTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "convolution of computed weights": lambda x, y: F.conv2d(x, y[:4, :4].reshape(4, 4, 1, 1).expand(4, 4, 2, 3), None, 2, 1),
    "grouped convolution of computed weights": lambda x, y: F.conv2d(x, y[:, :2].reshape(6, 2, 1, 1).expand(6, 2, 2, 2), y[:, 0], groups=2),
    "convolution of a computed bias": lambda x, y: F.conv2d(x, weight(6, 4, 1, 1), y[:, 0]),
    "transposed convolution of computed weights": lambda x, y: F.conv_transpose2d(x, y[:4, :3].reshape(4, 3, 1, 1).expand(4, 3, 3, 3), None, 2, 1, 1),
    "transposed convolution of groups": lambda x, y: F.conv_transpose2d(x, weight(4, 3, 3, 2), weight(6), (2, 1), (1, 0), (1, 0), 2),
    "transposed convolution, dilated": lambda x, y: F.conv_transpose2d(x, weight(4, 3, 3, 2), None, 1, 0, 0, 1, 2),
    "transposed convolution of rows": lambda x, y: F.conv_transpose1d(x[:, :, 0], weight(4, 2, 3), None, 2, 1, 1),
    "convolution of one frame": lambda x, y: F.conv2d(x[0], weight(2, 4, 3, 3)),
    "convolution of rows": lambda x, y: F.conv1d(x[:, :, 0], weight(2, 4, 3), weight(2), 2, 1),
    "convolution that keeps the size": lambda x, y: F.conv2d(x, weight(2, 4, 3, 3), padding="same", dilation=(1, 2)),
    "a vector by a matrix": lambda x, y: y[0] @ y.t(),
    "a matrix by a vector": lambda x, y: x @ y[0, :5],
    "two vectors": lambda x, y: y[0].dot(y[1])[None],
    "matrices by a matrix": lambda x, y: x @ y[:5],
    "a matrix by matrices": lambda x, y: weight(7, 5) @ x.transpose(2, 3),
    "a sum and a product": lambda x, y: torch.addmm(y, y, y, beta=0.5, alpha=2),
    "attention of fewer keys": lambda x, y: F.scaled_dot_product_attention(x, x[:, :2], x[:, 2:], enable_gqa=True),
    "attention masked by what is computed": lambda x, y: F.scaled_dot_product_attention(x, x, x, y[:5, :5] > -0.9),
}


class Products(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x, y) for function in PRODUCTS_OF_ALL_SETTINGS.values())


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> tuple[Placement, dict[str, tuple[Tensor, Tensor]]]:
    folder = tmp_path_factory.mktemp("products")
    inputs = weight(1, 4, 5, 5), weight(6, 6)
    placement = written(lower(Products(), inputs, executorch.PROFILE), inputs, folder)
    return placement, dict(zip(PRODUCTS_OF_ALL_SETTINGS, zip(ran(folder, inputs), Products()(*inputs), strict=True), strict=True))


@pytest.mark.parametrize("name", PRODUCTS_OF_ALL_SETTINGS)
def test_convolutions_and_products_of_all_settings(name: str, products: tuple[Placement, dict[str, tuple[Tensor, Tensor]]]) -> None:
    placement, results = products
    torch.testing.assert_close(*results[name], rtol=1e-4, atol=1e-5)
    assert operators(placement).keys() == {"aten.slice.Tensor", "aten.gt.Scalar", "aten.where.self"}


OPERANDS = weight(6, 1, 1, 1)
PACKED: dict[str, Callable[[Tensor], Tensor]] = {
    "convolution": lambda x: F.conv2d(x.transpose(0, 1)[:, :1], OPERANDS),
    "depthwise convolution": lambda x: F.conv2d(x.transpose(0, 1), OPERANDS, groups=6),
    "transposed convolution": lambda x: F.conv_transpose2d(x.transpose(0, 1), OPERANDS, stride=2, groups=6),
}


@pytest.mark.parametrize("name", PACKED)
def test_weights_may_be_an_operand_of_another_operation_too(name: str, tmp_path: Path) -> None:
    """XNNPACK packs weights; another operation that read them crashed."""
    checked(lambda x: (x * OPERANDS, PACKED[name](x), x + OPERANDS), (weight(6, 2, 5, 5),), tmp_path)


def test_masks_that_are_known_leave_infinities_as_they_are(tmp_path: Path) -> None:
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    x = weight(3, 3).masked_fill(~mask, math.inf)
    x[0, 0] = -math.inf

    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x * 1
        return torch.where(mask, y, torch.tensor(0.5)), torch.where(mask, torch.tensor(-math.inf), y), torch.where(mask, y, y.exp()).relu()

    assert operators(checked(function, (x,), tmp_path)) == {}


def test_an_operator_without_any_kernel_is_named_with_its_line(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (torch.lgamma(x * 2 + 3),)

    x = weight(2, 3)
    with pytest.raises(ClipstepError) as error:
        written(lower(Odd(), (x,), executorch.PROFILE), (x,), tmp_path)
    assert "got aten.lgamma.default of shapes [(2, 3)]: no kernel for aten::lgamma.out" in str(error.value)
    assert f'it comes from File "{__file__}", line {Odd.forward.__code__.co_firstlineno + 1}, in forward' in str(error.value)
    assert not (tmp_path / "step.pte").exists()


def test_a_product_that_xnnpack_cannot_compute_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"aten.matmul.default of shapes \[\(2, 3\), \(3, 2\)\]: XNNPACK does not take values of float64"):
        written(traced(lambda x: x.double() @ x.t().double(), weight(2, 3)), (weight(2, 3),), tmp_path)


def test_what_executorchs_tools_raise_has_the_operation_and_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = RuntimeError("cannot lay out the memory")

    def failing(*_: Any, **__: Any) -> None:
        raise cause

    monkeypatch.setattr(executorch_writer, "to_edge", failing)
    with pytest.raises(ClipstepError, match="ExecuTorch cannot write the network; got RuntimeError: cannot lay out the memory") as error:
        written(traced(lambda x: x.round() + 1, weight(2, 3)), (weight(2, 3),), tmp_path)
    assert error.value.__cause__ is cause


def test_a_function_that_fails_is_an_error_with_its_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setitem(XNNPACK_OPERATORS, torch.ops.aten.tanh.default, failing)
    with pytest.raises(ClipstepError, match=r"got aten.tanh.default on shapes \[\(2, 3\)\].*: IndexError: tuple index out of range") as error:
        written(traced(lambda x: x.tanh(), weight(2, 3)), (weight(2, 3),), tmp_path)
    assert isinstance(error.value.__cause__, IndexError)


def test_remainders_of_negative_whole_numbers_are_those_of_python(tmp_path: Path) -> None:
    """ExecuTorch's own kernel computes `fmod` there."""
    checked(lambda x: (x % 4, torch.remainder(x, -3), x.float() % 4), (torch.arange(-8, 9),), tmp_path)
