"""Biases that are columns of weights take nothing of the numbers that integers of 8 bits have for the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from clipstep.export import ExportOptions, export_network, network_of_module, variants
from clipstep.export.choosing import Measured
from clipstep.export.lowering.passes.editing import constant
from clipstep.export.targets.bias_columns import balance_bias_columns
from clipstep.export.variants import variants_of
from tests.export.test_chosen_bundle import HERE, UNITS
from tests.export.test_float16 import traced

WEIGHT = torch.tensor([[0.001, -0.002, 0.3], [0.004, 0.001, -0.1]])
"""Two columns of weights, and one of biases."""
X = torch.tensor([[3.0, 100.0, -7.0, 0.0], [200.0, -50.0, 8.0, 1.0]])


def product(x: Tensor) -> Tensor:
    return torch.mm(WEIGHT, torch.cat([x, torch.ones(1, 4)]))


def balanced(graph: fx.GraphModule, greatest: float) -> tuple[Tensor, Tensor]:
    """The weights and the row of ones, once they are balanced with rows of that range."""
    (rows,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default)
    balance_bias_columns(graph, {rows: (-50.0, greatest)})
    (node,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default)
    return constant(graph, node.args[0]), constant(graph, node.args[1].args[0][1])


@pytest.mark.parametrize(("greatest", "factor"), [(200.0, 128.0), (64.0, 64.0), (63.9, 32.0), (1.0, 1.0), (-3.0, 1.0)])
def test_the_factor_is_a_power_of_two_within_the_range(greatest: float, factor: float) -> None:
    graph = traced(product, X)
    weight, row = balanced(graph, greatest)
    assert torch.equal(row, torch.full((1, 4), factor)) and torch.equal(weight[:, :2], WEIGHT[:, :2])
    assert torch.equal(weight[:, 2], WEIGHT[:, 2] / factor)
    assert torch.equal(graph(X)[0], torch.mm(weight, torch.cat([X, row])))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.mm(WEIGHT, torch.cat([x * 2, torch.full((1, 4), 2.0)])),
        lambda x: torch.mm(WEIGHT * torch.tensor([1000.0, 1000.0, 1.0]), torch.cat([x, torch.ones(1, 4)])),
        lambda x: torch.mm(WEIGHT, rows := torch.cat([x, torch.ones(1, 4)])).sum() + rows.sum(),
    ],
)
def test_what_is_no_row_of_ones_or_outweighs_nothing_stays(function: Any) -> None:
    graph = traced(function, X)
    before, constants = graph.code, dict(graph.named_buffers())
    balance_bias_columns(graph, dict.fromkeys(graph.graph.nodes, (-50.0, 200.0)))
    assert graph.code == before and dict(graph.named_buffers()) == constants


class Stem(nn.Module):
    """A convolution of frames, whose weights are small beside its biases, as those of frames of 0..255 are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv3d(3, 12, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.Linear(12, 4)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(frames).relu().mean((2, 3, 4)))
        return logits


def test_all_variants_of_int8_are_as_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {"frames": 4, "size": 32, "labels": list("abcd"), "mean": (104.0,) * 3, "std": (58.0,) * 3, "fps": 25}
    names = ("gemm", "linear-layers")
    monkeypatch.setattr(variants, "variants_of", lambda *given: [one for one in variants_of(*given) if one.name in names])

    def measure(_: str, __: str, ___: str, files: dict[str, Path], *____: Any) -> tuple[str, dict[str, Measured]]:
        return UNITS[HERE], {name: Measured(1.0) for name in files}

    options = ExportOptions(("executorch",), precisions=("int8",), tune=measure, platforms=(HERE,))  # type: ignore[arg-type]
    (choice,) = export_network(network_of_module(Stem().eval(), **facts), tmp_path / "x.clipstep", options).manifest.choices
    errors = {one.variant: one.max_relative_error or 0.0 for one in choice.tried[0].variants}
    assert set(errors) == set(names) and 0 < errors["gemm"] < 2 * errors["linear-layers"]
