"""Operators of networks, lowered and written as an ML Program, in the evaluator, against torch: in float32, in float16, and for the lowest iOS."""

from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from operator_cases import NAMED, A, B, Function, Several, lowered_cases
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower
from clipstep.export.mlprogram import MlProgram
from clipstep.export.targets import coreml, coreml_writer
from clipstep.export.targets.coreml_operations import OPERATORS, ml_program
from clipstep.export.targets.float16 import beyond_float16
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.errors import ClipstepError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter"),
]
aten = torch.ops.aten


def lowered(*functions: Function) -> fx.GraphModule:
    return lower(Several(functions), (A, B), coreml.PROFILE)


def eager(*functions: Function) -> tuple[Tensor, ...]:
    return Several(functions)(A, B)


def in_an_ml_program(graph: fx.GraphModule, precision: str, folder: Path, ios: int = 17) -> list[Tensor]:
    outputs: Any = graph.graph.output_node().args[0]
    names = [f"out_{i}" for i in range(len(outputs))]
    program: Any = SimpleNamespace(
        input_names=["a", "b"], output_names=names, frames=A, states={"b": B}, sample=A[None], subclips=lambda sample: sample
    )
    wide = beyond_float16(graph, program) if precision == "float16" else {}
    coreml_writer.to_ml_program(graph, program, precision, ios, wide).save(str(folder / "step.mlpackage"))
    return [torch.from_numpy(value) for value in MlProgram(folder / "step.mlpackage").run([A.numpy(), B.numpy()])]


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    """The lowered graph of all cases."""
    return lowered_cases("coreml")


@pytest.fixture(scope="module", params=["float32", "float16", "float32, iOS 15"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, graph: fx.GraphModule
) -> tuple[str, dict[str, tuple[Tensor, Tensor]]]:
    precision = request.param.split(",")[0]
    got = in_an_ml_program(graph, precision, tmp_path_factory.mktemp("coreml"), 15 if "15" in request.param else 17)
    expected = eager(*(function for _, function in NAMED.values()))
    return precision, dict(zip(NAMED, zip(got, expected, strict=True), strict=True))


@pytest.mark.parametrize("name", NAMED)
def test_an_operator(name: str, written: tuple[str, dict[str, tuple[Tensor, Tensor]]]) -> None:
    precision, results = written
    got, expected = results[name]
    if precision == "float32":
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)
    else:  # The mean, because a rounded number may fall on the other side of a step.
        assert got.shape == expected.shape
        assert float((got - expected).abs().mean()) <= 0.01 * max(1.0, float(expected.abs().max()))


def test_the_writer_has_what_the_lowering_leaves_and_nothing_else(graph: fx.GraphModule) -> None:
    """A function for an operator that never reaches the writer would be dead."""
    assert set(OPERATORS) == {node.target for node in graph.graph.nodes if node.op == "call_function"} - {getitem}


@pytest.mark.parametrize("name", NAMED)
def test_a_case_has_its_operator(name: str) -> None:
    operator, function = NAMED[name]
    assert operator in {node.target for node in make_fx(function, pre_dispatch=True)(A, B).graph.nodes}


def test_a_transposed_convolution_with_a_computed_bias_stays_one() -> None:
    """Only weights that the step computes need zeros between the elements and a convolution."""
    program = ml_program(lowered(lambda a, b: F.conv_transpose2d(a, torch.ones(6, 2, 3, 3), b[0, 0, 0, :2], 2)), ["a", "b"], ["out_0"])
    operations = [operation.op_type for operation in program.functions["main"].operations]
    assert "conv_transpose" in operations and "conv" not in operations


REFUSED: dict[str, tuple[Function, str]] = {
    "an operator that Core ML lacks": (lambda a, b: torch.lgamma(a), r"aten\.lgamma\.default on shapes \[\(1, 6, 4, 5\)\] from File "),
    "a setting": (
        lambda a, b: a.scatter(3, a[:, :, :2].argsort(3), a),
        r"scatter\.src on .*indices that are smaller than the value along",
    ),
    "large integers": (lambda a, b: a + torch.tensor(2**40) * (a > 0), "integers beyond int32"),
    "two integers": (lambda a, b: aten.bitwise_and.Tensor(a.int(), b.int()).float(), "two integers that are computed"),
    "a value without elements": (lambda a, b: a[:, 3:3] + 1, "a constant without elements"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name: str) -> None:
    """Whatever the writer or coremltools refuses is one exception, which names the operator and the shapes."""
    function, message = REFUSED[name]
    with pytest.raises(Unsupported, match=message):
        ml_program(lowered(function), ["a", "b"], ["out_0"])


def test_float16_weights_are_rounded_float32_weights(tmp_path: Path) -> None:
    """Constants that coremltools folds, such as a repeated one, have other names in the two packages."""
    operators = (aten.conv2d.default, aten.layer_norm.default, aten.prelu.default, aten.scatter.value, aten._trilinear.default, aten.where.self)
    functions = [function for operator, function in NAMED.values() if operator in operators]
    graph = lowered(*functions)
    for precision in ("float32", "float16"):
        (tmp_path / precision).mkdir()
        in_an_ml_program(graph, precision, tmp_path / precision)
    exact = MlProgram(tmp_path / "float16/step.mlpackage", tmp_path / "float32/step.mlpackage")
    for got, expected in zip(exact.run([A.numpy(), B.numpy()]), eager(*functions), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=2e-5, atol=2e-5)


def test_values_beyond_float16_are_computed_in_float32(tmp_path: Path) -> None:
    functions: list[Function] = [lambda a, b: ((a * 300) ** 2 + 1e5).sqrt() / 100, lambda a, b: F.normalize(a * 0 + 1e-9, dim=1, eps=1e-12)]
    large, small = in_an_ml_program(lowered(*functions), "float16", tmp_path)
    torch.testing.assert_close(large, eager(*functions)[0], rtol=2e-3, atol=1e-3)
    assert bool(small.isfinite().all())


def test_an_overflow_of_float16_is_named(tmp_path: Path) -> None:
    in_an_ml_program(lowered(lambda a, b: (a * 300) ** 2 / 1e5), "float16", tmp_path)
    with pytest.raises(ClipstepError, match=r"mul: a value is too large for float16; got \d+; expected at most 65504"):
        MlProgram(tmp_path / "step.mlpackage").run([A.numpy() * 100, B.numpy()])
