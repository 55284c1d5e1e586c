"""What float16 is too narrow for stays in float32: which operations that are, and that an artifact with large numbers has no infinities."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from clipstep.export.lowering.passes import fold_constants
from clipstep.export.targets import coreml_writer, executorch_writer
from clipstep.export.targets.float16 import TOO_LARGE, TOO_SMALL, beyond_float16
from clipstep.export.targets.quantization import COMPUTED_IN
from clipstep.export.targets.xnnpack_graph import xnnpack_graph
from clipstep.runtime.bundle.manifest import Placement

X = torch.linspace(-2, 3, 60).reshape(1, 3, 4, 5)


def traced(function: Callable[..., Any], *inputs: Tensor) -> fx.GraphModule:
    graph = make_fx(lambda *values: (result,) if isinstance(result := function(*values), Tensor) else result, pre_dispatch=True)(*inputs)
    fold_constants(graph)
    return graph


def program(subclips: Tensor, *states: Tensor) -> Any:
    named = {f"state_{i}": state for i, state in enumerate(states)}
    return SimpleNamespace(
        inputs=(subclips[0], *states),
        frames=subclips[0],
        states=named,
        sample=subclips,
        subclips=lambda sample: sample,
        calibration=(),
        calibration_percentile=100,
        float32_layers=0,
    )


def kept(function: Callable[..., Any], subclips: Tensor = X[None], *states: Tensor) -> dict[str, str]:
    """The operators that stay in float32."""
    found = beyond_float16(traced(function, subclips[0], *states), program(subclips, *states))
    return {str(node.target).split(".")[1]: reason for node, reason in found.items()}


KEPT: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, str]]] = {
    "nothing": (lambda x: F.conv2d(x * 300 + 0.01, torch.ones(2, 3, 2, 2), torch.full((2,), 1e-6)).relu(), {}),
    "what computes a large number and what reads it": (
        lambda x: ((x * 20000).relu() / 20000).sigmoid(),
        {"mul": TOO_LARGE, "relu": TOO_LARGE, "div": TOO_LARGE},
    ),
    "a whole number that is a factor": (lambda x: (x * 1e-3) * 100_000, {"mul": TOO_LARGE}),
    "large weights": (lambda x: F.linear(x * 1e-3, torch.full((2, 5), 40000.0)), {"linear": TOO_LARGE}),
    "large products that cancel": (lambda x: F.linear(x * 0 + 1, torch.tensor([[2e4, 1e4, 1e4, -2e4, -2e4]])), {"linear": TOO_LARGE}),
    "a sum of many": (lambda x: (x * 1e-3).repeat(1, 1, 30, 40).sum((1, 2, 3)), {"sum": TOO_LARGE}),
    "an epsilon": (lambda x: (x + 1e-6).sqrt(), {"add": TOO_SMALL, "sqrt": TOO_SMALL}),
    "small numbers that are multiplied": (lambda x: (x * 1e-5) * 3e4, {"mul": TOO_SMALL}),
    "large deviations in a layer norm": (lambda x: F.layer_norm(x * 3000, (5,), eps=0.1), {"layer_norm": TOO_LARGE}),
    "a sum in an average pool": (lambda x: F.avg_pool2d(x * 2000, 4, 1), {"avg_pool2d": TOO_LARGE}),
}


@pytest.mark.parametrize("name", KEPT)
def test_operations_that_float16_is_too_narrow_for(name: str) -> None:
    function, expected = KEPT[name]
    assert kept(function) == expected


def test_later_steps_and_their_states_count() -> None:
    """The state doubles with each of three steps: 10,000, 20,000, 40,000."""
    frames = torch.ones(3, 2)

    def step(frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return frames.sigmoid(), state * 2

    assert kept(step, frames, torch.tensor([5000.0])) == {"mul": TOO_LARGE}
    assert kept(step, frames[:2], torch.tensor([5000.0])) == {}


def written(function: Callable[..., Any], folder: Path) -> tuple[Placement, list[Tensor]]:
    placement = executorch_writer.write(traced(function, X), program(X[None]), "float16", "{}", folder / "step.pte")
    return placement, list(portable_lib._load_for_executorch(str(folder / "step.pte")).forward([X]))


def test_large_numbers_become_no_infinities_and_the_artifact_says_so(tmp_path: Path) -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return ((F.conv2d(x, torch.full((2, 3, 1, 1), 30000.0)).relu() * 2).sqrt() / 100, F.normalize(x * 0 + 1e-9, dim=1, eps=1e-12))

    placement, (large, normalised) = written(function, tmp_path)
    torch.testing.assert_close(large, function(X)[0], rtol=2e-3, atol=2e-3)
    assert bool(normalised.isfinite().all())
    assert f"in float32: aten.conv2d, aten.relu, aten.mul.Tensor, aten.sqrt ({TOO_LARGE})" in placement.summary()
    assert {one.operator for one in placement.in_float32 if one.reason == TOO_SMALL} >= {"aten.div.Tensor"}


def test_a_core_ml_package_says_what_it_computes_in_float32(tmp_path: Path) -> None:
    named = vars(program(X[None])) | {"input_names": ["frames"], "output_names": ["logits"]}
    placement = coreml_writer.write(
        traced(lambda x: (x * 30000).relu() / 30000, X), SimpleNamespace(**named), "float16", "{}", tmp_path / "x.mlpackage"
    )
    assert placement.summary().endswith(f"in float32: aten.mul.Tensor, aten.relu, aten.div.Tensor ({TOO_LARGE})")


def test_what_needs_no_float32_is_computed_in_float16(tmp_path: Path) -> None:
    """2048.5 and 2049 are 2048 in float16, whose numbers are even from there on."""
    placement, (got,) = written(lambda x: (x * 0 + 2048.5) + 0.25, tmp_path)
    assert placement.in_float32 == () and got.unique().tolist() == [2048.0]


def test_values_are_converted_where_the_types_meet() -> None:
    """Once where an input is first used, before an output, and around what stays in float32; a clamp of the other type is not fused."""
    graph = traced(lambda x: (F.conv2d(x, torch.ones(2, 3, 1, 1)).relu(), F.conv2d(x, torch.ones(4, 3, 1, 1)).relu(), x), X)
    for node in graph.graph.nodes:
        node.meta[COMPUTED_IN] = torch.float16
    assert _kinds(graph) == ["Convert", "StaticTranspose", "Conv2d", "Conv2d", *["StaticTranspose", "Convert"] * 2, "Copy"]
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.conv2d.default:
            del node.meta[COMPUTED_IN]
    assert _kinds(graph)[:3] == ["StaticTranspose", "Conv2d", "Convert"] and _kinds(graph).count("Clamp") == 2


def _kinds(graph: fx.GraphModule) -> list[str]:
    return [type(node.xnode_union).__name__.removeprefix("XNN") for node in xnnpack_graph(graph).nodes]
