"""The page of operators is what the code says, and the code does what the page says."""

import re
from collections.abc import Callable
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
from operator_cases import lowered_cases
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from clipstep.export import export
from clipstep.export.targets import TARGETS, operators
from clipstep.export.targets.coreml_operations import ml_program
from clipstep.export.targets.executorch_writer import prepared
from clipstep.export.targets.onnx_model import onnx_model
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.errors import ClipstepError

PAGE = Path(__file__).parents[2] / "docs/operators.md"
NO = ("no", "no", "no")
X = (1, 4, 6, 5)


def _for_xnnpack(graph: fx.GraphModule) -> None:
    """Raise `Unsupported` if XNNPACK does not take all of a graph."""
    _, refused = prepared(graph, (torch.randn(*X),))
    for reason in refused.values():
        raise Unsupported(reason)


WRITERS: dict[str, Callable[[fx.GraphModule], Any]] = {
    "onnx": lambda graph: onnx_model(graph, ["x"], ["y"]),
    "executorch": _for_xnnpack,
    "coreml": lambda graph: ml_program(graph, ["x"], ["y"]),
}
REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str, str, tuple[str, ...]]] = {
    "another type": (lambda x: x.softmax(1, torch.float64), "aten.softmax.int", "a result other than float32", ("executorch",)),
    "a root": (lambda x: x.abs() ** 0.3, "aten.pow.Tensor_Scalar", "an exponent that is no multiple of 0.25, or above 8", ("executorch",)),
    "a long sum": (lambda x: x.flatten().cumsum(0), "aten.cumsum.default", "an axis of more than 64 entries", ("executorch",)),
    "unshuffled pixels": (
        lambda x: F.pixel_unshuffle(x[:, :, :, :4], 2),
        "aten.pixel_unshuffle.default",
        "several channels",
        ("onnx", "executorch", "coreml"),
    ),
}
NOT_LOWERED: dict[str, Callable[[Tensor], Tensor]] = {
    "another factor": lambda x: torch.add(x, x, alpha=2),
    "rounded sizes": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "selu, as an elu with scales": lambda x: torch.ops.aten.elu(x, 1.5, 1.1),
    "a padding by reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "an average pool whose size is rounded up": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "another divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
}


def _table(heading: str) -> dict[str, tuple[str, ...]]:
    text = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): tuple(row[1:]) for row in rows}


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == operators.page(), "run: python -m clipstep.export.targets.operators > docs/operators.md"


def test_the_page_says_of_each_operator_whether_a_writer_has_a_function_for_it() -> None:
    taken = {
        name: {operator for operator, cells in _table("Operators of lowered graphs").items() if cells[place] != "no"}
        for place, name in enumerate(TARGETS)
    }
    assert taken == {name: {str(operator) for operator in target.load_writer().OPERATORS} - {str(getitem)} for name, target in TARGETS.items()}
    assert NO not in _table("Operators of lowered graphs").values()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_writer_refuses_what_the_page_says_and_nothing_else(case: str, name: str) -> None:
    function, operator, reason, refusing = REFUSED[case]
    graph = make_fx(lambda x: (function(x),), pre_dispatch=True)(torch.randn(*X))
    assert any(str(node.target) == operator for node in graph.graph.nodes)
    said = _table("Operators of lowered graphs")[operator][list(TARGETS).index(name)]
    if name in refusing:
        assert reason in said or said == "no"
        with pytest.raises(Unsupported):
            WRITERS[name](graph)
    elif said != "no":
        assert reason not in said
        WRITERS[name](graph)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("case", NOT_LOWERED)
def test_a_setting_that_the_lowering_removes_is_refused_and_not_ignored(case: str, name: str) -> None:
    graph = make_fx(lambda x: (NOT_LOWERED[case](x),), pre_dispatch=True)(torch.randn(*X))
    with pytest.raises(Unsupported):
        WRITERS[name](graph)


def test_no_operator_of_core_aten_is_without_an_answer() -> None:
    """Each is handled in some way, or refused with a reason that says more than that it is refused."""
    answers = _table("Core ATen")
    assert len(answers) > 180
    assert [name for name, (answer,) in answers.items() if answer == "no: it has no rule"] == []


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter", "ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", ["onnx", "executorch"])
def test_a_writer_has_functions_for_what_reaches_it_alone(name: str) -> None:
    """A function for an operator that the lowering always replaces would be dead. For Core ML, tests of its operators hold the same."""
    assert TARGETS[name].load_writer().OPERATORS.keys() - {getitem} <= {node.target for node in lowered_cases(name).graph.nodes}


def test_reasons_are_found_in_the_functions_that_a_function_calls() -> None:
    def inner(x: int) -> None:
        if x > 1:
            raise Unsupported("more than one")

    def outer(x: int) -> None:
        inner(x)
        raise Unsupported("anything")

    for function in (inner, outer):
        function.__module__ = operators.WRITERS
    assert operators.refusals(outer) == ["anything", "more than one"]


def test_a_reason_that_is_not_a_constant_is_a_mistake() -> None:
    def refuse(x: int) -> None:
        raise Unsupported(f"{x}")

    with pytest.raises(TypeError, match="is not a constant text"):
        operators.refusals(refuse)


class Odd(torch.nn.Module):
    """A network with an operator that Core ML lacks."""

    def forward(self, frames: Tensor) -> Tensor:
        return torch.lgamma(frames[:, :, 0].abs() + 2).amax((2, 3))


class OddClip(torch.nn.Module):
    """The same, of all frames, whose mean over time can become steps."""

    def forward(self, frames: Tensor) -> Tensor:
        return torch.lgamma(frames.abs() + 2).mean((2, 3, 4))


@pytest.mark.parametrize(("network", "stream", "shape"), [(Odd, None, "1, 3, 16, 16"), (OddClip, 2, "1, 2, 16, 48")])
def test_what_a_converter_raises_is_one_line_that_says_why_it_was_asked(
    network: type[torch.nn.Module], stream: int | None, shape: str, tmp_path: Path
) -> None:
    """coremltools raises its own types; the message names the operator, its shapes and the line of the network, also of one that became steps."""
    known: Any = {"frames": 4, "size": 16, "labels": ("r", "g", "b"), "mean": (114.0,) * 3, "std": (57.0,) * 3, "fps": 25.0}
    with quiet(), pytest.raises(ClipstepError) as error:
        export(network().eval(), tmp_path / "odd.clipstep", targets=["coreml"], stream=stream, **known)
    refused = rf'aten\.lgamma\.default on shapes \[\({shape}\)\] from File "{re.escape(__file__)}", line \d+, in forward'
    assert re.match(rf"coremltools cannot convert the network, which our own writer does not take \({refused}\); got ", str(error.value))
    assert "\n" not in str(error.value) and error.value.__cause__ is not None
    assert not (tmp_path / "odd.clipstep").exists()
