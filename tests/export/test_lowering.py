"""The lowered home network against the eager one, and the order of its operations."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from clipstep.export.lowering.lower import lower
from clipstep.export.lowering.passes import depth_first, slice_early
from clipstep.export.step import Step, StepProgram
from clipstep.export.targets import onnx
from clipstep.training.models import PRESETS, build, slowfast_causal_shufflenet

aten = torch.ops.aten
PIXEL, FRAMES = torch.ones(3), torch.arange(4.0).reshape(4, 1, 1)


class Ranks(fx.Interpreter):
    """Runs a graph and records the rank of every value in it, constants included."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: set[int] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen.add(result.ndim)
        return result


HEAVY = [("a4b2", 2, 1), ("a4b2", 7, 1), ("a4b2", 9, 3), ("a2b1", 9, 1), ("a2b1", 16, 1)]


@pytest.mark.parametrize(
    ("preset", "frames", "buffer_frames"),
    [
        ("a2b1", 1, 1),
        ("a2b1", 7, 3),
        ("a4b2", 16, 3),
        *(pytest.param(*case, marks=pytest.mark.heavy) for case in HEAVY),
    ],
)
def test_three_chained_steps_equal_the_eager_network(
    preset: str, frames: int, buffer_frames: int, randomise: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowfast_causal_shufflenet, "STAGE_UNITS", (2, 1, 1))  # Every kind of unit, in a quarter of the time.
    torch.manual_seed(frames)
    config = {"classes": 5, "frames": frames, "size": 32, "buffer_frames": buffer_frames, **PRESETS[preset]}
    network = randomise(build("slowfast_causal_shufflenet", config))
    step = Step(network, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0)).eval()
    clips = torch.randint(256, (3, frames, 32, 32, 3), dtype=torch.uint8)
    eager_states = lowered_states = list(network.initial_states().values())
    lowered = Ranks(lower(step, (clips[0], *eager_states), onnx.PROFILE))
    with torch.no_grad():
        for clip in clips:
            logits, *eager_states = step(clip, *eager_states)
            lowered_logits, *lowered_states = lowered.run(clip, *lowered_states)
            for value, expected in zip([lowered_logits, *lowered_states], [logits, *eager_states], strict=True):
                torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    assert all(state.abs().max() > 0.1 for state in eager_states)  # Otherwise the comparison would prove little.
    assert max(lowered.seen) == 4


def _diamond() -> fx.GraphModule:
    """Two branches written breadth first: both inputs' relus, then both doublings, then the sum."""
    graph = fx.Graph()
    x, y, unused = (graph.placeholder(name) for name in ("x", "y", "unused"))
    relus = [graph.call_function(torch.relu, (value,)) for value in (x, y)]
    doubles = [graph.call_function(operator.mul, (value, 2)) for value in relus]
    graph.call_function(torch.neg, (unused,))
    graph.output((graph.call_function(operator.sub, tuple(doubles)), relus[1]))
    return fx.GraphModule(nn.Module(), graph)


def test_depth_first_keeps_the_results_and_finishes_a_branch_before_the_next() -> None:
    before = _diamond()
    after = depth_first(before)
    x, y = torch.randn(2, 5)
    for value, expected in zip(after(x, y, x), before(x, y, x), strict=True):
        assert torch.equal(value, expected)
    assert [node.name for node in after.graph.nodes if node.op == "placeholder"] == ["x", "y", "unused"]
    assert [node.target for node in after.graph.nodes if node.op == "call_function"] == [torch.relu, operator.mul] * 2 + [operator.sub]


def test_depth_first_puts_every_node_after_its_inputs(program: StepProgram) -> None:
    graph = torch.export.export(program.step, program.inputs).module(check_guards=False)
    before, nodes = list(graph.graph.nodes), list(depth_first(graph).graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    assert all(place[source] < place[node] for node in nodes for source in node.all_input_nodes)
    assert [node.name for node in nodes] != [node.name for node in before]
    used = [node.name for node in before if node.users or node.op in ("placeholder", "output")]
    assert sorted(node.name for node in nodes) == sorted(used)


def _cut(x: Tensor, *parts: tuple[int, int], dim: int = 0) -> list[Tensor]:
    return [aten.slice.Tensor(x, dim, *part) for part in parts]


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (lambda x: _cut((x.float() + PIXEL).reshape(1, 4, 30).permute(1, 0, 2), (0, 1), (1, 2), (2, 4)), True),
        (lambda x: _cut((x.float() * 2.0).permute(2, 0, 1) - 1.0, (0, 2), (2, 3), dim=1), True),
        (lambda x: _cut(x.float() + FRAMES, (0, 1), (1, 4)), False),
        (lambda x: _cut(x.float(), (0, 2), (1, 3), (2, 4)), False),
        (lambda x: _cut(x.float().reshape(2, 60), (0, 1), (1, 2)), False),
        (lambda x: _cut(y := x.float(), (0, 2)) + _cut(y, (2, 4), dim=1), False),
        (lambda x: [*_cut(y := x.float(), (0, 2)), y + 1.0], False),
        (lambda x: _cut(x * x, (0, 2), (2, 4)), False),
    ],
    ids=["frames", "columns", "a constant for each frame", "parts that overlap", "an axis that is joined", "other axes", "used whole", "squared"],
)
def test_values_are_sliced_before_elementwise_operations(function: Callable[[Tensor], list[Tensor]], moved: bool) -> None:
    x = torch.arange(120, dtype=torch.uint8).reshape(4, 10, 3)
    graph = make_fx(function)(x)
    expected = graph(x)
    slice_early(graph)
    for got, wanted in zip(graph(x), expected, strict=True):
        assert torch.equal(got, wanted)
    first = next(node for node in graph.graph.nodes if node.op == "call_function")
    assert (first.target == aten.slice.Tensor) == moved


def test_pytorch_looks_for_all_operators_once_in_a_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it does so once for each namespace of operators, of which there are dozens: most of the time of a small network's export."""
    looks, own = [], torch._C._dispatch_get_registrations_for_dispatch_key

    def counted(key: str) -> list[str]:
        looks.append(key)
        return own(key)

    network, inputs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (torch.zeros(1, 3, 8, 8),)
    lower(network, inputs, onnx.PROFILE)  # The table of decompositions is made once in a process.
    monkeypatch.setattr(torch._C, "_dispatch_get_registrations_for_dispatch_key", counted)
    lower(network, inputs, onnx.PROFILE)
    assert len(looks) == 1
