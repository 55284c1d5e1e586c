"""Options of int8: weights that are equalised across layers, and biases that are corrected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export import export
from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.lowering.passes.editing import constant
from clipstep.export.module import network_of_module
from clipstep.export.options import ExportOptions
from clipstep.export.step import StepProgram, program_of
from clipstep.export.targets import executorch, executorch_writer
from clipstep.export.targets.equalization import equalized
from clipstep.export.targets.quantization import quantized_weight
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, StepModel
from tests.export.test_float16 import program, traced

Cli = Callable[..., tuple[int, str, str]]
FACTS: dict[str, Any] = {"frames": 4, "size": 16, "labels": ["a", "b", "c", "d"], "mean": [110.0] * 3, "std": [58.0] * 3, "fps": 25}
UNEVEN = 2.0 ** torch.tensor([10, 0, 0, 0, -1, 0, 0, 3, 0, 0, 0, 0])
"""What the channels between two convolutions are multiplied by, and divided by again."""


class Blocks(nn.Module):
    """A convolution and blocks as of a ShuffleNet: grouped, shuffled, depthwise, grouped. Without a state."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv3d(3, 12, 3, 2, 1)
        self.into = nn.Conv3d(12, 12, 1, groups=3)
        self.shuffle = nn.ChannelShuffle(3)
        self.depthwise = nn.Conv3d(12, 12, 3, 1, 1, groups=12, bias=False)
        self.out = nn.Conv3d(12, 8, 1, groups=2)
        self.last = nn.Linear(8, 4)
        with torch.no_grad():
            self.stem.weight *= factors.reshape(-1, 1, 1, 1, 1)
            self.stem.bias *= factors  # type: ignore[operator]
            self.into.weight /= factors.reshape(3, 1, 4, 1, 1, 1).expand(3, 4, 4, 1, 1, 1).reshape(12, 4, 1, 1, 1)
            self.depthwise.weight *= factors.reshape(-1, 1, 1, 1, 1)
            self.out.weight /= factors.reshape(2, 1, 6, 1, 1, 1).expand(2, 4, 6, 1, 1, 1).reshape(8, 6, 1, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        y = self.depthwise(self.shuffle(self.into(self.stem(frames).relu()).relu()))
        logits: Tensor = self.last(self.out(y).relu().mean((2, 3, 4)))
        return logits


class Reused(Blocks):
    """The same, but what is between the first two convolutions is read once more, and the third has computed weights."""

    def forward(self, frames: Tensor) -> Tensor:
        y = self.stem(frames).relu()
        z = F.conv3d(self.into(y), self.depthwise.weight * y.mean(), padding=1, groups=12)
        logits: Tensor = self.last(self.out(z + y).relu().mean((2, 3, 4)))
        return logits


def graphs_of(network: nn.Module) -> tuple[StepProgram, fx.GraphModule, fx.GraphModule]:
    """A network's step, and its simplified graph before and after it is equalised."""
    step = program_of(network_of_module(network.eval(), **FACTS))
    graph = simplified(step.step, step.inputs)
    return step, graph, equalized(graph, step)


def test_equalised_weights_compute_the_same_numbers() -> None:
    """Factors are powers of two."""
    step, before, after = graphs_of(Blocks(UNEVEN))
    inputs = (step.sample[-4:],)
    (expected,), (got,) = (lower_graph(graph, step.inputs, executorch.PROFILE)(*inputs) for graph in (before, after))
    assert torch.equal(expected, got)
    changed = [not torch.equal(one, other) for one, other in zip(_weights(before), _weights(after), strict=True)]
    assert changed == [True, True, True, True]


def _weights(graph: fx.GraphModule) -> list[Tensor]:
    convolutions = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.conv3d.default)
    return [constant(graph, node.args[1]) for node in convolutions if node.args[1].op == "get_attr"]


def test_values_that_others_read_too_are_not_scaled() -> None:
    _, before, after = graphs_of(Reused(UNEVEN))
    assert len(_weights(before)) == 3 and all(torch.equal(one, other) for one, other in zip(_weights(before), _weights(after), strict=True))


def exported(out: Path, **options: Any) -> Bundle:
    given = FACTS | {"precisions": ["int8"]} | options
    return Bundle.open(export(Blocks(UNEVEN).eval(), out, **given).bundle)


def errors(bundle: Bundle, engine: str) -> float:
    """The root mean square of the errors of the logits, over their standard deviation from step to step."""
    golden = GoldenSteps.of(bundle)
    with StepModel.load(bundle, engine, precision="int8") as model:
        got = np.stack([model.step(golden.subclips[step % len(golden.subclips)], [])[0] for step in range(len(golden.logits))])
    return float(np.sqrt(((got - golden.logits) ** 2).mean()) / golden.logits.std(0).mean())


@pytest.mark.parametrize(("target", "engine"), [("executorch", "executorch"), ("onnx", "onnxruntime")])
def test_channels_of_small_ranges_are_not_lost_if_they_are_equalised(target: str, engine: str, tmp_path: Path) -> None:
    """In 256 numbers of the range of one channel, the others are rounded to 0."""
    plain, equal = (errors(exported(tmp_path / f"{equalize}.clipstep", targets=[target], equalize=equalize), engine) for equalize in (False, True))
    assert equal < 0.25 * plain


def test_other_artifacts_of_the_bundle_are_not_equalised(tmp_path: Path) -> None:
    given = {"targets": ["onnx", "executorch"], "precisions": ["float32"]}
    (tmp_path / "plain").mkdir()
    plain = exported(tmp_path / "plain/x.clipstep", **given)
    both = exported(tmp_path / "x.clipstep", **given | {"precisions": ["float32", "int8"], "equalize": True})
    assert {one.sha256 for one in plain.manifest.artifacts} <= {one.sha256 for one in both.manifest.artifacts}


ROWS = torch.tensor([[1.27, 0.0049, 0.0149, 0.0249, 0.0349], [-1.27, 0.0051, 0.0151, 0.0251, 0.0351]])
"""Weights in steps of 0.01, of which those of the first row are rounded down, and those of the second up."""
X = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("bias", [None, torch.tensor([0.5, -0.5])])
@pytest.mark.parametrize("kind", ["a linear layer", "a convolution", "two frames of one convolution"])
def test_a_corrected_bias_makes_up_for_the_rounding_of_weights(kind: str, bias: Tensor | None, tmp_path: Path) -> None:
    functions: dict[str, Callable[[Tensor], Any]] = {
        "a linear layer": lambda x: F.linear(x, ROWS, bias),
        "a convolution": lambda x: F.conv2d(x.permute(0, 3, 1, 2), ROWS[:, :, None, None], bias),
        "two frames of one convolution": lambda x: torch.cat(
            [F.conv2d(one.permute(0, 3, 1, 2), ROWS[:, :, None, None], bias) for one in (x[:, :2], x[:, 2:] * 0.9)], 2
        ),
    }
    integers, scales = quantized_weight(ROWS, 0)
    shift = ((integers * scales[:, None] - ROWS) * X.mean((0, 1, 2))).sum(1)
    assert shift[0] < -0.008 and shift[1] > 0.008, "what the rounding moves the mean by, from the definition"
    moved = []
    for correct in (False, True):
        graph, given = traced(functions[kind], X), program(X[None])
        given.correct_biases = correct
        executorch_writer.write(graph, given, "int8", "{}", tmp_path / "step.pte")
        (got,) = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([X])
        error = got - graph(X)[0]
        moved.append(error.mean((0, 1, 2)) if kind == "a linear layer" else error.mean((0, 2, 3)))
    assert moved[0][0] < -0.006 and moved[0][1] > 0.006
    assert float(moved[1].abs().max()) < 0.003


def test_both_are_asked_for_on_the_command_line(tmp_path: Path, run_folder: Path, clipstep: Cli) -> None:
    files = []
    for index, options in enumerate(([], ["--equalize"], ["--correct-biases"])):
        out = tmp_path / str(index) / "x.clipstep"
        code, _, error = clipstep("export", run_folder, "--target", "executorch", "--precision", "int8", *options, "--out", out)
        assert code == 0, error
        files.append((out / "step-int8.pte").read_bytes())
    assert files[0] != files[2]


@pytest.mark.parametrize("option", ["equalize", "correct_biases"])
def test_they_are_for_int8(option: str) -> None:
    name = f"--{option.replace('_', '-')}"
    with pytest.raises(ClipstepError, match=f"{name} is for artifacts that compute in int8; got none of them; add --precision executorch=int8"):
        ExportOptions(precisions=("coreml=int8",), **{option: True})
