"""States that add up over the steps: in every precision they are, after thousands of steps, what eager PyTorch computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import export, network_of_module
from clipstep.export.parity import load_for_verification
from clipstep.export.step import program_of
from clipstep.export.targets import TARGETS, coreml_writer
from clipstep.export.targets.accumulation import ADDS_UP, accumulating
from clipstep.export.unsupported import Unsupported
from clipstep.export.variants import Graphs, variants_of
from clipstep.runtime import Bundle, StepModel

FACTS: dict[str, Any] = {"frames": 2, "size": 16, "labels": list("abcd"), "mean": [110.0] * 3, "std": [58.0] * 3, "fps": 25}
STEPS = 5000
"""Where float16 has only every fourth whole number."""
PRECISIONS = [
    *(("executorch", precision) for precision in ("float16", "dynamic8", "int8")),
    *(("onnx", "int8"), *(("coreml", precision) for precision in ("float16", "int8", "w8a8"))),
]


class Counting(nn.Module):
    """A counter, a sum and a moving average of features, and the newest features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features, self.classify = nn.Conv3d(3, 8, (1, 3, 3)), nn.Linear(8, 4)

    def initial_states(self) -> dict[str, Tensor]:
        return {"count": torch.zeros(1, 1), **{name: torch.zeros(1, 8) for name in ("total", "average", "newest")}}

    def forward(self, frames: Tensor, count: Tensor, total: Tensor, average: Tensor, newest: Tensor) -> tuple[Tensor, ...]:
        x = self.features(frames).relu().mean((2, 3, 4))
        count, total, average = count + 1, total + x, average + 0.0005 * (x - average)
        logits = self.classify(total / count + average + newest)
        return logits, count, total, average, x


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(Counting(), tmp_path_factory.mktemp("counting"))


def bundle_of(network: nn.Module, folder: Path, **options: Any) -> Bundle:
    precisions = [f"{target}={precision}" for target, precision in PRECISIONS]
    return Bundle.open(export(network.eval(), folder / "x.clipstep", precisions=precisions, keep_going=False, **FACTS | options).bundle)


def run(bundle: Bundle, target: str, precision: str, frames: Tensor, states: list[Tensor]) -> list[np.ndarray[Any, Any]]:
    """One step of an artifact, from given states."""
    (artifact,) = [one for one in bundle.manifest.artifacts if (one.target, one.precision) == (target, precision)]
    assert ADDS_UP in {one.reason for one in artifact.placement.in_float32} or (target, precision) in (("coreml", "w8a8"), ("onnx", "int8"))
    with StepModel(bundle.manifest.interface(artifact.input_dtype), load_for_verification(target, bundle.file(artifact)), artifact.file) as model:
        given = frames.numpy() if artifact.input_dtype == "uint8" else frames.numpy().astype(np.float32)
        outputs = model.step_outputs(given, [state.numpy() for state in states])
    return [outputs.logits, *outputs.states]


@pytest.mark.parametrize(("target", "precision"), PRECISIONS)
def test_counters_and_averages_go_on(target: str, precision: str, counting: Bundle) -> None:
    program = program_of(network_of_module(Counting().eval(), **FACTS))
    torch.manual_seed(0)
    x = torch.rand(1, 8)
    states = [torch.full((1, 1), float(STEPS)), x * STEPS, x, x]
    with torch.no_grad():
        _, count, total, average, _ = (value.numpy() for value in program.step(program.frames, *states))
    found = run(counting, target, precision, program.frames, states)
    assert found[1] == count == STEPS + 1
    assert np.abs(found[2] - total).max() < 0.02  # The features, which are added, are rounded; a sum in float16 would be off by up to 2.
    assert (
        np.abs(average - x.numpy()).max() > 1e-5 and np.abs(found[3] - average).max() < 1e-5
    )  # It moves, though by less than float16 has digits for.


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_they_do_so_if_coremltools_converts_the_network(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_written(*_: Any) -> None:
        raise Unsupported("an operator")

    monkeypatch.setattr(coreml_writer, "to_ml_program", not_written)
    bundle = Bundle.open(export(Counting().eval(), tmp_path / "x.clipstep", targets=["coreml"], precisions=[precision], **FACTS).bundle)
    states = [torch.full((1, 1), float(STEPS)), torch.rand(1, 8) * STEPS, torch.rand(1, 8), torch.rand(1, 8)]
    program = program_of(network_of_module(Counting().eval(), **FACTS))
    with torch.no_grad():
        _, count, total, average, _ = (value.numpy() for value in program.step(program.frames, *states))
    found = run(bundle, "coreml", precision, program.frames, states)
    assert found[1] == count and np.abs(found[2] - total).max() < 0.02 and np.abs(found[3] - average).max() < 1e-5


class Clip(nn.Module):
    """A clip network whose mean over time becomes a running mean of a stream."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0)), nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
        self.classify = nn.Linear(4, 4)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.first(frames).relu()
        logits: Tensor = self.classify((x + self.second(x)).mean((2, 3, 4)))
        return logits


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(Clip(), tmp_path_factory.mktemp("streamed"), frames=4, stream=2)


@pytest.mark.parametrize(("target", "precision"), PRECISIONS)
def test_a_stream_goes_on(target: str, precision: str, streamed: Bundle) -> None:
    """Its steps are counted, and the mean over all frames so far moves ever less."""
    program = program_of(network_of_module(Clip().eval(), **FACTS | {"frames": 4}), 2)
    torch.manual_seed(0)
    states = [torch.rand_like(program.states["past"]), torch.full((1, 1), float(STEPS)), torch.zeros(1, 1)]
    with torch.no_grad():
        _, past, position, ended = (value.numpy() for value in program.step(program.frames, *states))
    found = run(streamed, target, precision, program.frames, states)
    assert found[2] == position == STEPS + 1 and found[3] == ended
    mean = past[:, -4:]
    assert 1e-5 < np.abs(mean - states[0][:, -4:].numpy()).max() < 1e-2 and np.abs(found[1][:, -4:] - mean).max() < 1e-5


def step(states: dict[str, Tensor], function: Callable[..., tuple[Tensor, ...]]) -> nn.Module:
    """A network that is a function of features (1, 3) and states."""

    class Network(nn.Module):
        def initial_states(self) -> dict[str, Tensor]:
            return states

        def forward(self, frames: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            return function(frames.mean((2, 3, 4)), *given)

    return Network().eval()


ONE, ROW = torch.zeros(1, 1), torch.zeros(1, 3)
SQUARE = torch.linspace(-1, 1, 9).reshape(3, 3)
NETWORKS: dict[str, tuple[nn.Module, list[str]]] = {
    "a counter": (step({"n": ONE}, lambda x, n: (x, n + 1)), ["add"]),
    "a counter, with what computes with it": (
        step({"n": ONE}, lambda x, n: (x + (n * 2 + 1).clamp(0, 1) * 3, n + 1)),
        ["add", "add", "clamp", "mul"],
    ),
    "a countdown": (step({"n": torch.full((1, 1), 9.0)}, lambda x, n: (x, (n - 1).relu())), ["relu", "sub"]),
    "a sum, and a product of it": (step({"s": ROW}, lambda x, s: (torch.mm(s + x, SQUARE), s + x)), ["add", "mm"]),
    "a leaky sum": (step({"s": ROW}, lambda x, s: (torch.mm(s, SQUARE), s * 0.9 + x)), ["add", "mul"]),
    "a sum by concatenation": (step({"s": ROW}, lambda x, s: (x, torch.cat([s, x]).sum(0, keepdim=True))), ["cat", "sum"]),
    "a shift register": (step({"s": torch.zeros(1, 9)}, lambda x, s: (s[:, :3] + x, torch.cat([s[:, 3:], x + x], 1))), []),
    "a recurrent layer": (step({"h": ROW}, lambda x, h: (h, torch.tanh(torch.mm(h, SQUARE) + x))), []),
    "a residual recurrent layer": (step({"h": ROW}, lambda x, h: (x, h + torch.mm(h, SQUARE).tanh() + x)), ["add", "add", "mm"]),
    "two states that are exchanged": (step({"a": ROW, "b": ROW}, lambda x, a, b: (x, b + x, a)), []),
    "a state that is not used": (step({"s": ROW}, lambda x, s: (x, x + x)), []),
    "parts of a packed state": (
        step({"s": torch.zeros(1, 6)}, lambda x, s: (x, torch.cat([s[:, :3] + x, s[:, 3:] * x], 1))),
        ["add", "cat", "slice"],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_adds_up(name: str) -> None:
    network, expected = NETWORKS[name]
    program = program_of(network_of_module(network, **FACTS | {"labels": list("abc")}))
    graph: Any = Graphs(program).of(variants_of(TARGETS["executorch"], "auto", "any")[0])
    found = [node.target.__name__.partition(".")[0] for node in accumulating(graph, len(program.states))]
    assert sorted(found) == expected
