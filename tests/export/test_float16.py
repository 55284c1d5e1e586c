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
from clipstep.export.targets.executorch_frames import FRAMES_DIVISOR, divide_frames
from clipstep.export.targets.float16 import PRODUCTS, TOO_LARGE, TOO_SMALL, beyond_float16, measured_ranges
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
        correct_biases=False,
        found_ranges={},
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


SPREAD = torch.logspace(-9, 0, 10)
"""Of these, five are below the smallest normal number of float16."""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(lambda x: F.linear(x, (SPREAD * 0.1)[None, :5]), {"linear": TOO_SMALL}, id="a weight whose numbers are all small"),
        pytest.param(lambda x: F.linear(x, torch.tensor([[5e-5, -3e-4, 5e-5, 3e-4, 2e-4]])), {"linear": TOO_SMALL}, id="small beside the largest"),
        pytest.param(lambda x: F.linear(x, SPREAD[None, 5:]), {}, id="small numbers that do not count beside large ones"),
        pytest.param(lambda x: F.linear(x, torch.ones(2, 5), torch.tensor([1e-6, 1.0])), {}, id="a small bias"),
        pytest.param(lambda x: (x * 1e-3 * 0.1).sigmoid(), {"mul": TOO_SMALL, "sigmoid": TOO_SMALL}, id="a value"),
    ],
)
def test_what_an_engine_that_flushes_small_numbers_to_zero_would_lose(function: Callable[[Tensor], Tensor], expected: dict[str, str]) -> None:
    found = measured_ranges(traced(function, X), program(X[None]), flushes=True).found
    assert {str(node.target).split(".")[1]: reason for node, reason in found.items()} == expected


FRAMES = torch.randint(256, (2, 8, 10, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
KERNEL = (torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * 0.1 / 255
SHIFT = torch.linspace(-200, 0, 30)


def shifted(frames: Tensor) -> Tensor:
    return (frames.float().reshape(2, 8, 30) + SHIFT).reshape(2, 8, 10, 3).permute(0, 3, 1, 2)


def as_columns(frames: Tensor) -> Tensor:
    """A product of matrices, whose bias is a column of weights for a row of ones."""
    rows = torch.cat([F.pad(shifted(frames), (1, 1, 0, 0)).permute(1, 0, 2, 3).reshape(3, -1), torch.ones(1, 192)])
    return torch.cat([KERNEL[0, :, :, 0].t(), torch.full((3, 1), 0.01)], 1) @ rows


STEMS: dict[str, Callable[[Tensor], Any]] = {
    "a convolution": lambda frames: F.conv2d(shifted(frames), KERNEL, torch.ones(4), padding=1),
    "two products of one weight": lambda frames: (
        F.linear(shifted(frames)[..., :9], KERNEL.reshape(12, 9)),
        shifted(frames)[..., 1:] @ KERNEL[0].reshape(9, 3),
    ),
    "a product with a row of ones": as_columns,
}


@pytest.mark.parametrize("name", STEMS)
def test_frames_are_divided_so_that_their_weights_are_not_small(name: str, tmp_path: Path) -> None:
    """Nothing else is rounded: both factors are powers of two."""
    expected = traced(STEMS[name], FRAMES)(FRAMES)
    graph, _ = executorch_writer.prepared(traced(STEMS[name], FRAMES), (FRAMES,))
    assert _products(graph, FRAMES) == {"small"}
    divide_frames(graph)
    graph.recompile()
    assert _products(graph, FRAMES) == {"large"} and f"mul.Tensor(to_dtype, {1 / FRAMES_DIVISOR})" in graph.code
    assert all(torch.equal(a, b) for a, b in zip(graph(FRAMES), expected, strict=True))
    written_placement = executorch_writer.write(traced(STEMS[name], FRAMES), program(FRAMES[None]), "float16", "{}", tmp_path / "step.pte")
    got = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([FRAMES])
    assert written_placement.in_float32 == ()
    for one, other in zip(got, expected, strict=True):
        assert float((one - other).abs().max()) < 2e-3 * float(other.max() - other.min())


def _products(graph: fx.GraphModule, frames: Tensor) -> set[str]:
    """Whether weights are small, so that they would be kept in float32."""
    found = measured_ranges(graph, program(frames[None]), flushes=True).found
    return {"small" if found.get(node) == TOO_SMALL else "large" for node in graph.graph.nodes if node.target in PRODUCTS}


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda frames: F.conv2d(shifted(frames).relu(), KERNEL), id="something else between"),
        pytest.param(lambda frames: (F.conv2d(shifted(frames), KERNEL), shifted(frames)), id="an output"),
        pytest.param(lambda frames: F.conv2d(frames.permute(0, 3, 1, 2).float() + 3.0, KERNEL), id="a sum with a number"),
        pytest.param(lambda frames: shifted(frames) @ shifted(frames).transpose(-1, -2), id="a product of two"),
        pytest.param(lambda frames: F.linear(shifted(frames), KERNEL[0, 0, 0, 0].expand(10, 10), shifted(frames)[0, 0, 0]), id="a bias"),
        pytest.param(lambda frames: F.conv2d(F.pad(shifted(frames), (1, 1, 1, 1), value=3.0), KERNEL), id="padding with other numbers"),
        pytest.param(lambda frames: F.conv2d(shifted(frames), KERNEL * shifted(frames).mean()), id="computed weights"),
    ],
)
def test_frames_that_more_than_products_read_are_not_divided(function: Callable[[Tensor], Any]) -> None:
    graph, _ = executorch_writer.prepared(traced(function, FRAMES), (FRAMES,))
    before = graph.code
    divide_frames(graph)
    graph.recompile()
    assert graph.code == before


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda frames: (frames.float() * 0.25).relu(), id="multiplied by a number"),
        pytest.param(lambda frames: frames.float() * 0.25 + frames.float() * 0.5, id="by two"),
        pytest.param(lambda frames: (frames.float() * 0.25, frames.float()), id="and as they are"),
    ],
)
def test_numbers_that_frames_are_multiplied_by(function: Callable[[Tensor], Any], precision: str, tmp_path: Path) -> None:
    graph = traced(function, FRAMES)
    executorch_writer.write(graph, program(FRAMES[None]), precision, "{}", tmp_path / "step.pte")
    got = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([FRAMES])
    assert all(torch.equal(one, other) for one, other in zip(got, graph(FRAMES), strict=True))


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
