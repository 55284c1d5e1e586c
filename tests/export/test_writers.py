"""Graphs as we write them for ExecuTorch's XNNPACK and for onnxruntime, run there, against torch."""

import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from operator_cases import Several
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower
from clipstep.export.lowering.passes import fold_constants
from clipstep.export.mlprogram import MlProgram
from clipstep.export.targets import coreml, coreml_writer, executorch, executorch_writer, xnnpack
from clipstep.export.targets import onnx as onnx_target
from clipstep.export.targets.onnx_model import onnx_model
from clipstep.export.targets.xnnpack_graph import xnnpack_graph
from clipstep.export.unsupported import Unsupported

A, B, M = (1, 12, 6, 5), (1, 12, 6, 5), (3, 4, 6)
Function = Callable[[Tensor, Tensor, Tensor], Tensor]


def weight(*shape: int) -> Tensor:
    return (torch.arange(1, 1 + math.prod(shape)) * 1.7).sin().reshape(shape)


def traced(function: Callable[..., Any], *inputs: Tensor) -> fx.GraphModule:
    graph = make_fx(function, pre_dispatch=True)(*inputs)
    fold_constants(graph)
    return graph


def in_executorch(graph: fx.GraphModule, inputs: tuple[Tensor, ...], folder: Path, precision: str = "float32") -> list[Tensor]:
    from executorch.extension.pybindings import portable_lib

    xnnpack_graph(graph)  # Otherwise ExecuTorch's own partitioner would be tested.
    frames, *states = inputs
    program: Any = SimpleNamespace(inputs=inputs, frames=frames, states=dict(enumerate(states)), sample=frames[None], subclips=lambda sample: sample)
    placement = executorch_writer.write(graph, program, precision, "{}", folder / "step.pte")
    assert placement.not_delegated == () and list(placement.delegated) == ["XnnpackBackend"]
    return list(portable_lib._load_for_executorch(str(folder / "step.pte")).forward(list(inputs)))


def in_onnxruntime(graph: fx.GraphModule, inputs: tuple[Tensor, ...], folder: Path) -> list[Tensor]:
    names = [f"in_{i}" for i in range(len(inputs))]
    outputs: Any = graph.graph.output_node().args[0]
    model = onnx_model(graph, names, [f"out_{i}" for i in range(len(outputs))])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})]


def in_an_ml_program(graph: fx.GraphModule, inputs: tuple[Tensor, ...], folder: Path) -> list[Tensor]:
    outputs: Any = graph.graph.output_node().args[0]
    program: Any = SimpleNamespace(input_names=[f"in_{i}" for i in range(len(inputs))], output_names=[f"out_{i}" for i in range(len(outputs))])
    coreml_writer.to_ml_program(graph, program, "float32").save(str(folder / "step.mlpackage"))
    return [torch.from_numpy(value) for value in MlProgram(folder / "step.mlpackage").run([x.numpy() for x in inputs])]


ENGINES = {
    "executorch": (in_executorch, executorch.PROFILE),
    "executorch, float16": (partial(in_executorch, precision="float16"), executorch.PROFILE),
    "onnxruntime": (in_onnxruntime, onnx_target.PROFILE),
    "coreml": (in_an_ml_program, coreml.PROFILE),
}


def check(engine: str, got: Tensor, expected: Tensor) -> None:
    half = engine.endswith("float16")
    tolerance = 5e-3 * max(1.0, float(expected.abs().max())) if half else 1e-5
    torch.testing.assert_close(got, expected, rtol=0 if half else tolerance, atol=tolerance)


def run(engine: str, functions: list[Function], folder: Path) -> list[tuple[Tensor, Tensor]]:
    """What each function gives, lowered, in the engine and in torch, all in one file."""
    inputs = tuple(torch.randn(*shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate((A, B, M)))
    write, profile = ENGINES[engine]
    return list(zip(write(lower(Several(functions), inputs, profile), inputs, folder), Several(functions)(*inputs), strict=True))


SINGLE: dict[str, Function] = {
    "conv2d": lambda a, b, m: F.conv2d(a, weight(7, 12, 3, 2), weight(7), (2, 1), (1, 0), (1, 2)),
    "conv2d of groups, limited": lambda a, b, m: F.conv2d(a, weight(9, 4, 1, 1), None, groups=3).relu(),
    "conv2d of channels that fill no tile, limited": lambda a, b, m: F.conv2d(a, weight(30, 12, 1, 1), weight(30)).relu(),
    "conv2d of channels that fill no tile, cut": lambda a, b, m: F.conv2d(a, weight(23, 12, 1, 1))[:, 3:, 2:4],
    "depthwise conv2d": lambda a, b, m: F.conv2d(a, weight(12, 1, 3, 3), weight(12), padding=1, groups=12),
    "depthwise conv2d with a multiplier": lambda a, b, m: F.conv2d(a, weight(24, 1, 3, 3), weight(24), stride=2, groups=12),
    "conv2d, moved, then limited": lambda a, b, m: F.relu6(F.conv2d(a, weight(4, 12, 1, 1)).permute(0, 2, 3, 1).reshape(6, 20)),
    "conv2d used with and without a clamp": lambda a, b, m: (y := F.conv2d(a, weight(4, 12, 1, 1))).relu() + y,
    "linear of channels": lambda a, b, m: F.linear(a.permute(0, 2, 3, 1), weight(3, 12), weight(3)),
    "linear of columns": lambda a, b, m: F.linear(a, weight(3, 5)),
    "a constant of more axes": lambda a, b, m: weight(2, 1, 6, 5) * m.reshape(-1)[:30].reshape(6, 5),
    "layer norm": lambda a, b, m: F.layer_norm(a, (5,), weight(5), weight(5), 1e-3),
    "layer norm of rows and columns, without weights": lambda a, b, m: F.layer_norm(a, (6, 5)),
    "layer norm of channels": lambda a, b, m: F.layer_norm(F.conv2d(a, weight(7, 12, 3, 2)).permute(0, 2, 3, 1), (7,), None, weight(7)),
    "weights times a matrix": lambda a, b, m: torch.mm(weight(7, 12), a.reshape(12, 30)),
    "a matrix times weights": lambda a, b, m: torch.mm(a.reshape(12, 30), weight(30, 7)),
    "products of matrices": lambda a, b, m: torch.bmm(m, m.transpose(1, 2)),
    "add of another order": lambda a, b, m: a.relu() + b.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    "add, limited": lambda a, b, m: (a + b).clamp(-0.5, 1.0),
    "subtract from a number": lambda a, b, m: 1.5 - a,
    "subtract a channel's number": lambda a, b, m: a - weight(12, 1, 1),
    "multiply by lower rank": lambda a, b, m: a * b[0, 0],
    "divide": lambda a, b, m: a / (b * b + 1.0),
    "maximum": lambda a, b, m: torch.maximum(a, b),
    "minimum": lambda a, b, m: torch.minimum(a, b.abs()),
    "relu": lambda a, b, m: a.relu(),
    "hardtanh": lambda a, b, m: F.hardtanh(a, -0.25, 0.75),
    "clamp from below": lambda a, b, m: a.clamp_min(-0.1),
    "clamp from above": lambda a, b, m: a.clamp(max=0.1),
    "sigmoid": lambda a, b, m: a.sigmoid(),
    "silu": lambda a, b, m: F.silu(a),
    "tanh": lambda a, b, m: a.tanh(),
    "gelu": lambda a, b, m: F.gelu(a),
    "elu": lambda a, b, m: F.elu(a, 0.5),
    "leaky relu": lambda a, b, m: F.leaky_relu(a, 0.2),
    "hard sigmoid": lambda a, b, m: F.hardsigmoid(a * 4.0),
    "hardswish": lambda a, b, m: F.hardswish(a),
    "exp, sqrt, rsqrt, log": lambda a, b, m: a.exp().sqrt() + (a * a + 1.0).rsqrt() + (b.abs() + 1.0).log(),
    "square": lambda a, b, m: -(a**2),
    "softmax of channels": lambda a, b, m: a.softmax(1),
    "softmax of columns": lambda a, b, m: m.softmax(-1),
    "cat of many": lambda a, b, m: torch.cat([a[:, i : i + 1] for i in range(12)] + [b, weight(1, 1, 6, 5)], 1),
    "cat of other orders": lambda a, b, m: torch.cat([F.max_pool2d(a, 1), b], 2),
    "slices of a slice": lambda a, b, m: (y := a[:, 2:9, 1:])[:, 3:, 1:-1][:, :-1, -2:] + y[:, :3, 2:4],
    "boxes out of joined axes": lambda a, b, m: (y := a.exp().reshape(3, 4, 30).reshape(12, 6, 5))[5:7, 1:4, 2:] + y[3:5, 2:5, :3],
    "boxes out of split axes": lambda a, b, m: (y := a.exp().reshape(12, 30).reshape(4, 3, 6, 5))[1:3, :, :, 1:] + y[:2, :, :, :4],
    "shuffle of channels": lambda a, b, m: F.max_pool2d(F.max_pool2d(a, 1).reshape(1, 3, 4, 30).permute(0, 2, 1, 3).reshape(1, 12, 6, 5), 1),
    "slice, select": lambda a, b, m: a[:, 2:9, 1:][0, :, 3],
    "pad": lambda a, b, m: F.pad(a, (1, 0, 2, 3), value=0.5),
    "pad of channels": lambda a, b, m: F.pad(F.max_pool2d(a, 1), (0, 0, 0, 0, 1, 2)),
    "max pool": lambda a, b, m: F.max_pool2d(a, 3, 2, 1),
    "max pool over the end, limited": lambda a, b, m: F.max_pool2d(a, (2, 3), 2, 0, ceil_mode=True).relu(),
    "average pool": lambda a, b, m: F.avg_pool2d(a, 2, 1),
    "average pool of all": lambda a, b, m: F.avg_pool2d(a, (6, 5)),
    "mean of the plane": lambda a, b, m: a.mean((2, 3)),
    "mean of channels, kept": lambda a, b, m: F.max_pool2d(a, 1).mean(1, keepdim=True),
    "mean of rows and channels": lambda a, b, m: a.mean((1, 3)),
    "transposed conv2d": lambda a, b, m: F.conv_transpose2d(a, weight(12, 2, 3, 2), weight(4), (2, 1), (1, 0), (1, 0), 2),
    "sum": lambda a, b, m: m.sum(1),
    "resize": lambda a, b, m: F.interpolate(a, size=(9, 10), mode="bilinear", align_corners=True),
    "resize by a factor": lambda a, b, m: F.interpolate(a, scale_factor=2.0, mode="bilinear"),
    "an input as it is": lambda a, b, m: a,
    "a constant": lambda a, b, m: a[:, :1] * 0.0 + weight(1, 1, 6, 5),
}


@pytest.fixture(scope="module", params=ENGINES)
def single(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, tuple[Tensor, Tensor]]]:
    results = run(request.param, list(SINGLE.values()), tmp_path_factory.mktemp("writers"))
    return request.param, dict(zip(SINGLE, results, strict=True))


@pytest.mark.parametrize("name", SINGLE)
def test_an_operation(name: str, single: tuple[str, dict[str, tuple[Tensor, Tensor]]]) -> None:
    engine, results = single
    check(engine, *results[name])


def test_onnx_has_linear_layers_of_computed_weights(tmp_path: Path) -> None:
    for got, expected in run("onnxruntime", [lambda a, b, m: F.linear(a, b[0, 0])], tmp_path):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def chain(seed: int) -> Function:
    """Some random permutations, reshapes, slices, concatenations and convolutions in a row."""

    def function(a: Tensor, b: Tensor, m: Tensor) -> Tensor:
        chance = random.Random(seed)
        x = a
        for _ in range(8):
            what = chance.choice(["permute", "reshape", "slice", "cat", "conv", "add"])
            if what == "permute":
                x = x.permute(chance.sample(range(x.ndim), x.ndim))
            elif what == "reshape":
                sizes = list(x.shape)
                i = chance.randrange(len(sizes))
                factor = next((f for f in (2, 3, 5) if sizes[i] % f == 0), 1)
                sizes[i : i + 1] = [factor, sizes[i] // factor]
                while len(sizes) > 4:
                    j = chance.randrange(len(sizes) - 1)
                    sizes[j : j + 2] = [sizes[j] * sizes[j + 1]]
                x = x.reshape(sizes)
            elif what == "slice" and max(x.shape) > 2:
                dim = x.shape.index(max(x.shape))
                x = x[(slice(None),) * dim + (slice(1, -1),)]
            elif what == "cat":
                x = torch.cat([x, x.sigmoid()], chance.randrange(x.ndim)) if x.numel() < 2000 else x
            elif what == "conv" and x.ndim == 4:
                x = F.conv2d(x, weight(5, x.shape[1], 1, 1) / x.shape[1])
            elif what == "add":
                x = x + x.transpose(0, 1).contiguous().transpose(0, 1)
        return x

    return function


def test_only_the_frames_are_taken_as_floats(tmp_path: Path) -> None:
    """A conversion within the network, which drops what is behind the point, stays."""
    from executorch.extension.pybindings import portable_lib

    x = torch.randint(256, (4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    graph = traced(lambda x: ((x[1:].to(torch.float32) * 0.3).to(torch.int32).to(torch.float32) + 1.0,), x)
    program: Any = SimpleNamespace(inputs=(x,))
    executorch_writer.write(graph, program, "float32", "{}", tmp_path / "step.pte")
    (got,) = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([x])
    assert torch.equal(got, graph(x)[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_dilated_pools_and_pixels_as_channels(engine: str, tmp_path: Path) -> None:
    functions: list[Function] = [
        lambda a, b, m: F.max_pool2d(a, 2, 1, 0, 2),
        lambda a, b, m: F.pixel_unshuffle(F.pad(a, (0, 1)).reshape(12, 1, 6, 6), 2),
    ]
    for got, expected in run(engine, functions, tmp_path):
        check(engine, got, expected)


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 60), marks=pytest.mark.heavy)], ids=["few", "many"])
@pytest.mark.parametrize("engine", ENGINES)
def test_chains_of_moves(engine: str, seeds: range, tmp_path: Path) -> None:
    for got, expected in run(engine, [chain(seed) for seed in seeds], tmp_path):
        check(engine, got, expected)


def test_permutations_move_nothing() -> None:
    """Neither do reshapes that split or join axes that lie side by side."""

    def function(x: Tensor) -> tuple[Tensor]:
        y = F.conv2d(x.permute(0, 3, 1, 2), weight(8, 12, 1, 1))
        rows = y.permute(1, 0, 2, 3).reshape(1, 8, 2, 30)
        return (F.conv2d(rows, weight(4, 8, 2, 1)).permute(0, 2, 3, 1),)

    kinds = [type(node.xnode_union).__name__ for node in xnnpack_graph(traced(function, torch.randn(2, 6, 5, 12))).nodes]
    assert kinds == ["XNNConv2d", "XNNStaticReshape", "XNNConv2d"]


def test_a_reshape_around_an_operation_on_each_number_falls_away() -> None:
    graph = xnnpack_graph(
        traced(lambda x: (torch.mm(weight(4, 6), torch.mm(weight(6, 3), x).reshape(6, 2, 5).relu().reshape(6, 10)),), torch.randn(3, 10))
    )
    assert [type(node.xnode_union).__name__ for node in graph.nodes] == ["XNNBatchMatrixMultiply", "XNNClamp", "XNNBatchMatrixMultiply"]


def test_a_slice_of_a_reshape_is_cut_out_before_it() -> None:
    graph = xnnpack_graph(traced(lambda x: (x.exp().reshape(2, 3, 20)[1:].reshape(1, 60).exp(),), torch.randn(2, 60)))
    assert [type(node.xnode_union).__name__ for node in graph.nodes] == ["XNNExp", "XNNStaticSlice", "XNNExp"]


def test_a_box_is_cut_out_before_axes_were_joined() -> None:
    graph = xnnpack_graph(traced(lambda x: (x.exp().reshape(6, 5, 4)[4:6, 1:, 2:].exp(),), torch.randn(3, 2, 5, 4)))
    assert [type(node.xnode_union).__name__ for node in graph.nodes] == ["XNNExp", "XNNStaticSlice", "XNNExp", "XNNStaticReshape"]


def test_channels_are_computed_in_whole_tiles_where_that_is_little_more() -> None:
    def channels(count: int) -> list[list[int]]:
        graph = xnnpack_graph(traced(lambda x: (F.conv2d(x, weight(count, 12, 1, 1)).reshape(-1),), torch.randn(1, 12, 6, 5)))
        return [graph._values[node.xnode_union.output_id].dims for node in graph.nodes[:3]]

    assert channels(30)[1:] == [[1, 6, 5, 32], [1, 6, 5, 30]]
    assert channels(32)[1] == [1, 6, 5, 32]
    assert channels(2)[1] == [1, 6, 5, 2]


@pytest.mark.parametrize(
    ("shape", "transposed"),
    [((50, 3, 4), [[4, 3, 50], [50, 12]]), ((4, 5, 5, 20), [[20, 5, 4, 5], [20, 100]]), ((50, 16, 8), [[50, 8, 16]]), ((9, 3, 4), [[9, 4, 3]])],
)
def test_short_axes_are_exchanged_by_two_transpositions_of_long_ones(shape: tuple[int, ...], transposed: list[list[int]]) -> None:
    graph = xnnpack_graph(traced(lambda x: (x.exp().transpose(-1, -2).contiguous().exp(),), torch.randn(*shape)))
    moves = [node for node in graph.nodes if type(node.xnode_union).__name__ == "XNNStaticTranspose"]
    assert [graph._values[node.xnode_union.output_id].dims for node in moves] == transposed


def test_what_nobody_uses_is_not_computed() -> None:
    graph = xnnpack_graph(traced(lambda x: (x[:, 1:][:, :, 1:].reshape(-1).reshape(2, -1),), torch.randn(1, 3, 5)))
    assert [type(node.xnode_union).__name__ for node in graph.nodes] == ["XNNStaticSlice", "XNNStaticReshape"]


def test_a_value_that_nobody_uses_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the slice of which only a slice is used: what is stored are the input, the second slice and the result."""
    stored: list[Any] = []
    monkeypatch.setattr(xnnpack, "serialize_xnnpack_binary", lambda graph, _: stored.append(graph))
    xnnpack_graph(traced(lambda x: (x[:, 1:][:, :, 1:].reshape(-1).reshape(2, -1),), torch.randn(1, 3, 5))).serialized()
    assert [value.xvalue_union.dims for value in stored[0].xvalues] == [[1, 3, 5], [1, 2, 4], [2, 4]]


def test_a_slice_of_a_slice_is_one_as_onnx() -> None:
    traced_graph = traced(lambda x: (x[1:, 1:][:, 1:-1][:, :, 2],), torch.randn(3, 5, 4))
    nodes = onnx_model(traced_graph, ["x"], ["y"]).graph.node
    assert [node.op_type for node in nodes] == ["Slice", "Gather", "Identity"]


def test_a_transposition_of_a_transposition_is_one_as_onnx() -> None:
    x = torch.randn(2, 3, 4, 5)
    graph = traced(lambda x: (x.permute(0, 2, 3, 1).permute(1, -1, 0, 2).transpose(0, 1),), x)
    model = onnx_model(graph, ["x"], ["y"])
    assert [node.op_type for node in model.graph.node] == ["Transpose", "Identity"]
    (got,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    assert torch.equal(torch.from_numpy(got), graph(x)[0])


@pytest.mark.parametrize("opset", [13, 20])
def test_numbers_beside_values_of_float16_are_float16_as_onnx(opset: int) -> None:
    """A padding's number, a layer norm's weights and epsilon, and what a GELU multiplies by."""
    graph = traced(
        lambda x: (F.layer_norm(F.max_pool2d(F.pad(F.gelu(x.half()), (1, 1)), 3, padding=1, ceil_mode=True), (3,)).float(),), torch.randn(1, 3, 4, 5)
    )
    onnx.checker.check_model(onnx_model(graph, ["x"], ["y"], opset), full_check=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a.cumsum(1),
        lambda a: F.pad(a, (1, 1, 1, 1), "reflect"),
        lambda a: F.avg_pool2d(a, 3, 1, 1),
        lambda a: a**3,
        lambda a: F.gelu(a, approximate="tanh"),
        lambda a: F.conv2d(a, F.pad(a, (0, 0, 0, 0, 0, 0, 0, 3))),
    ],
)
def test_what_is_not_written(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(Unsupported):
        xnnpack_graph(traced(lambda x: (function(x),), torch.randn(1, 4, 4, 4)))


@pytest.mark.parametrize("function", [lambda a: a.lgamma(), lambda a: F.pad(a, (1, 1, 1, 1), "reflect"), lambda a: F.pixel_unshuffle(a, 2)])
def test_what_is_not_written_as_onnx(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(Unsupported):
        onnx_model(traced(lambda x: (function(x),), torch.randn(1, 4, 4, 4)), ["x"], ["y"])
