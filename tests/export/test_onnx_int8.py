"""ONNX artifacts of int8: that they compute what integers do, with no conversions between, on every processor, and what is faster in float32."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.targets import TARGETS, onnx_writer
from clipstep.export.targets.int8 import COMPUTED_WEIGHTS, INFINITE, NOT_BETWEEN, NOT_WRITTEN
from clipstep.export.targets.onnx_kernels import FEW_PRODUCTS, NO_KERNEL, SLOW_POOL
from clipstep.export.targets.quantization import Quantization
from clipstep.export.variants import variants_of
from clipstep.runtime import ClipstepError, StepModel
from clipstep.runtime.bundle.manifest import Placement
from clipstep.runtime.engine_onnxruntime import onnxruntime_session
from tests.export.test_float16 import program, traced
from tests.export.test_int8 import Small, exported

Cli = Callable[..., tuple[int, str, str]]
DRAWN = torch.Generator().manual_seed(5)
X = torch.randn(1, 12, 7, 8, generator=DRAWN) + 0.5
WEIGHT = torch.randn(5, 12, 3, 3, generator=DRAWN) * torch.tensor([1.0, 0.1, 3.0, 0.5, 0.01])[:, None, None, None]
BIAS = torch.tensor([0.5, -1.0, 30.0, 0.0, 2.0])
SQUARE = torch.randn(12, 12, 3, 3, generator=DRAWN)
GROUPED = torch.randn(4, 6, 3, 3, generator=DRAWN)
ROWS = torch.randn(5, 56, generator=DRAWN)
TALL = torch.randn(48, 6, generator=DRAWN)


def written(function: Callable[..., Any], folder: Path, *inputs: Tensor) -> tuple[Placement, onnx.ModelProto, list[Tensor]]:
    """The placement, the model as onnxruntime runs it, and what it computes."""
    graph = traced(function, *inputs)
    count = len(graph.graph.output_node().args[0])
    given = program(inputs[0][None], *inputs[1:])
    given.input_names, given.output_names = [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(count)]
    placement = onnx_writer.write(graph, given, "int8", "{}", folder / "step.onnx")
    session = onnxruntime_session(folder / "step.onnx", 1, optimized_model_filepath=str(folder / "run.onnx"), log_severity_level=3)
    got = session.run(None, {name: value.numpy() for name, value in zip(given.input_names, inputs, strict=True)})
    return placement, onnx.load(folder / "run.onnx"), [torch.from_numpy(value) for value in got]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_a_convolution_is_one_of_integers(tmp_path: Path) -> None:
    """As it is defined, in numpy's int64: the weights are integers of -64 to 64, the sums are exact, and the result is rounded once."""
    placement, model, (got,) = written(lambda x: F.conv2d(x, WEIGHT, BIAS).relu(), tmp_path, X)
    exact = F.conv2d(X, WEIGHT, BIAS).relu()
    of_x, of_result = Quantization.of(X), Quantization.of(exact)
    q = (of_x.integers(X).numpy().astype(np.int64) - of_x.zero_point)[0]
    scales = WEIGHT.abs().amax((1, 2, 3)).numpy() / 64
    w = np.rint(WEIGHT.numpy() / scales[:, None, None, None]).astype(np.int64)
    expected = np.zeros(exact.shape, np.float32)
    for o, i, j in np.ndindex(*exact.shape[1:]):
        total = (q[:, i : i + 3, j : j + 3] * w[o]).sum() + round(float(BIAS[o]) / (scales[o] * of_x.scale))
        expected[0, o, i, j] = total * scales[o] * of_x.scale
    rounded = of_result.numbers(of_result.integers(torch.from_numpy(expected)))
    assert float((got - rounded).abs().max()) <= of_result.scale * 1.001 and float((got == rounded).float().mean()) > 0.9
    assert placement.in_float32 == () and kinds(model)["QLinearConv"] == 1 and kinds(model)["DequantizeLinear"] == 1


def test_what_only_moves_is_rounded_once(tmp_path: Path) -> None:
    """Two convolutions between which values are padded, cut, joined and moved: conversions only where frames enter and the result leaves."""

    def function(x: Tensor) -> Tensor:
        y = F.conv2d(x, SQUARE).relu()
        return F.conv2d(torch.cat([y[:, :6], F.pad(y, (1, 1), value=0.25)[:, :6, :, 1:-1]], 1).transpose(2, 3).clamp(0, 8), SQUARE.abs())

    placement, model, (got,) = written(function, tmp_path, X)
    found = kinds(model)
    assert placement.in_float32 == () and found["QLinearConv"] == 2
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1 and found["Clip"] <= 2
    torch.testing.assert_close(got, function(X), rtol=0, atol=0.03 * float(function(X).abs().max()))


MIXED: dict[str, tuple[Callable[[Tensor], Any], dict[str, str], str]] = {
    "a linear layer": (lambda x: F.linear(x.reshape(12, 56), ROWS, BIAS), {}, "QGemm"),
    "rows of rows": (lambda x: F.linear(x.reshape(2, 6, 56), ROWS, BIAS), {}, "QGemm"),
    "a product with a constant second": (lambda x: x.reshape(14, 48) @ TALL, {}, "QLinearMatMul"),
    "a product with a constant first": (lambda x: (TALL.t() @ x.reshape(48, 14)).relu(), {}, "QLinearMatMul"),
    "a group of several channels": (
        lambda x: F.conv2d(x, GROUPED, None, (1, 2), 2, 2, 2),
        {},
        "QLinearConv",
    ),
    "a sum of products": (lambda x: F.conv2d(F.conv2d(x, SQUARE, padding=1) + x, SQUARE), {}, "QLinearAdd"),
    "a small bias and small weights": (lambda x: F.conv2d(x, SQUARE * 1e-20, torch.ones(12)), {}, "QLinearConv"),
    "a sum at the end": (lambda x: F.conv2d(x, SQUARE) + 2.5, {"add": NOT_BETWEEN}, "QLinearConv"),
    "a difference": (lambda x: F.conv2d(2.5 - F.conv2d(x, SQUARE), SQUARE), {"rsub": NO_KERNEL}, "QLinearConv"),
    "few products": (lambda x: F.conv2d(x, SQUARE[:, :, :1, 1:]), {"conv2d": FEW_PRODUCTS}, ""),
    "a depthwise convolution": (lambda x: F.conv2d(x, SQUARE[:, :1], groups=12), {"conv2d": FEW_PRODUCTS}, ""),
    "a max pool": (lambda x: F.conv2d(F.max_pool2d(F.conv2d(x, SQUARE).relu(), 3, 1, 1), SQUARE), {"max_pool2d": SLOW_POOL}, "QLinearConv"),
    "an operator that is not written": (lambda x: F.conv2d(x, SQUARE / 10).softmax(1), {"softmax": NOT_WRITTEN}, "QLinearConv"),
    "computed weights": (
        lambda x: x[0, 0] @ x[0, 0].transpose(0, 1),
        {"matmul": COMPUTED_WEIGHTS, "select": NOT_BETWEEN, "transpose": NOT_BETWEEN},
        "",
    ),
    "an infinity": (lambda x: F.conv2d(x, SQUARE) + torch.full((6,), -torch.inf), {"add": INFINITE}, "QLinearConv"),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_stays_in_float32_and_why(name: str, tmp_path: Path) -> None:
    function, expected, kind = MIXED[name]
    placement, model, (got,) = written(function, tmp_path, X)
    assert {one.operator.split(".")[1]: one.reason for one in placement.in_float32} == expected
    assert not kind or kinds(model)[kind] > 0
    exact = function(X)
    scale = float(exact[exact.isfinite()].abs().max()) if bool(exact.isfinite().any()) else 1.0
    torch.testing.assert_close(got, exact, rtol=0, atol=0.04 * scale)


def test_a_bias_beside_a_row_of_ones_is_as_exact_as_one_of_32_bits(tmp_path: Path) -> None:
    """Where all else is 0, the product is the bias, rounded once. In 8 bits the ones would be whole multiples of the others' scale, 0.2."""
    bias = torch.tensor([20.0, -7.3, 0.01, 0.0, 3.1, -0.2])

    def function(x: Tensor) -> Tensor:
        return torch.cat([TALL.t() / 8, bias[:, None]], 1) @ torch.cat([8 * x.reshape(48, 14), torch.ones(1, 14)], 0)

    _, model, _ = written(function, tmp_path, X)
    assert kinds(model)["QLinearMatMul"] == 1
    session = onnxruntime_session(tmp_path / "step.onnx", 1)
    (got,) = session.run(None, {"x0": np.zeros(X.shape, np.float32)})
    of_result = Quantization.of(function(X))
    expected = of_result.numbers(of_result.integers(bias))
    assert np.abs(got - expected[:, None].numpy()).max() <= of_result.scale * 1.001
    assert (got == expected[:, None].numpy()).mean() > 0.8


def test_no_processor_cuts_sums_off(tmp_path: Path) -> None:
    """x86_64 without VNNI adds two neighbouring products of a byte and a signed byte up in 16 bits, whose largest number is 32767."""
    written(lambda x: F.conv2d(x, WEIGHT), tmp_path, X)
    weights = [numpy_helper.to_array(one) for one in onnx.load(tmp_path / "step.onnx").graph.initializer if len(one.dims) == 4]
    assert len(weights) == 1 and weights[0].dtype == np.int8
    assert 2 * 255 * int(np.abs(weights[0]).max()) == 32640


class Recurrent(nn.Module):
    """A convolution, and a recurrent layer over frames, which gives several values at once; the class is that of the largest of its last numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution, self.layer, self.last = nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2)), nn.GRU(8, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, frames: Tensor) -> Tensor:
        numbers, _ = self.layer(self.convolution(frames).relu().mean((3, 4)).transpose(1, 2))
        largest, _ = numbers.max(1)
        logits: Tensor = self.last(largest)
        return logits


def test_operations_that_give_several_values(tmp_path: Path) -> None:
    """They stay in float32, and are counted once."""
    bundle = exported(tmp_path / "x.clipstep", Recurrent(), targets=["onnx"], precisions=["int8"])
    counts = {one.operator: one.count for one in bundle.manifest.artifacts[0].placement.in_float32}
    assert counts["aten.gru.input"] == 1 and not [name for name in counts if "getitem" in name]
    assert bundle.manifest.artifacts[0].parity.max_relative_error < 0.05


def test_int8_leaves_the_graph_as_it_was(tmp_path: Path) -> None:
    graph = traced(lambda x: F.conv2d(x, SQUARE), X)
    given = program(X[None])
    given.input_names, given.output_names = ["x"], ["y"]
    for name, precision in (("before", "float32"), ("int8", "int8"), ("after", "float32")):
        onnx_writer.write(graph, given, precision, "{}", tmp_path / name)
    before, int8, after = ((tmp_path / name).read_bytes() for name in ("before", "int8", "after"))
    assert before == after and len(int8) < len(before)


def test_what_torch_onnx_has_to_write_is_refused(tmp_path: Path) -> None:
    given = program(X[None])
    given.input_names, given.output_names = ["x"], ["y"]
    with pytest.raises(ClipstepError, match=r"only what clipstep writes itself can be in int8; got .*; export it in float32"):
        onnx_writer.write(torch.nn.Identity(), given, "int8", "{}", tmp_path / "step.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_of_int8_is_verified_smaller_and_run_if_asked_for(tmp_path: Path, clipstep: Cli) -> None:
    bundle = exported(tmp_path / "x.clipstep", Small(), targets=["onnx"], precisions=["float32", "int8"])
    wide, narrow = bundle.manifest.artifacts
    assert (wide.file, narrow.file, narrow.precision) == ("step.onnx", "step-int8.onnx", "int8")
    assert 1e-4 < narrow.parity.max_relative_error < 0.1 and wide.parity.max_relative_error < 1e-5
    assert [line.split()[2] for line in clipstep("verify", bundle.path)[1].splitlines() if line.startswith("step")] == ["equal", "near"]
    with StepModel.load(bundle, precision="int8") as model:
        assert model.precision == "int8" and "int8" in model.description
    assert clipstep("inspect", bundle.path)[1].count("step-int8.onnx") > 0


def test_int8_is_tuned_among_the_lowered_variants_alone() -> None:
    assert {one.form for one in variants_of(TARGETS["onnx"], "auto", "arm64", "int8")} == {"lowered"}
    assert "3d" in {one.form for one in variants_of(TARGETS["onnx"], "auto", "arm64", "float32")}
