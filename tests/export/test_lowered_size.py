"""The number of operations in the lowered graphs of the home network. A change of a number is meant, and measured, or it is a regression."""

from collections.abc import Callable

import pytest
from torch.fx import GraphModule

from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.module import network_of_module
from clipstep.export.step import program_of
from clipstep.export.targets import TARGETS
from clipstep.training.models import build

OPERATIONS = {
    ("onnx", "channel-major"): 1534,
    ("onnx", "batched"): 1598,
    ("onnx", "per-frame"): 2083,
    ("onnx", "no-winograd"): 1534,
    ("executorch", "gemm"): 1570,
    ("executorch", "gemm-per-tap"): 1706,
    ("executorch", "direct"): 1040,
    ("executorch", "per-frame"): 2174,
    ("executorch", "no-winograd"): 1570,
    ("executorch", "linear-layers"): 1666,
    ("coreml", "batched"): 819,
}
"""For each target and variant; with 16 frames of 112x112 pixels."""
DEFAULTS = (("onnx", "channel-major"), ("executorch", "gemm"), ("coreml", "batched"))


@pytest.fixture(scope="module")
def lowered_home() -> Callable[[str, str], GraphModule]:
    """Lowers the home network for a variant of a target."""
    network = build("slowfast_causal_shufflenet", {"classes": 7, "frames": 16, "size": 112}).eval()
    program = program_of(network_of_module(network, frames=16, size=112, labels=list("abcdefg"), mean=(114.0,) * 3, std=(57.0,) * 3, fps=25.0))
    graph = simplified(program.step, program.inputs)
    return lambda target, variant: lower_graph(graph, program.inputs, TARGETS[target].variants[variant])


@pytest.mark.parametrize(("target", "variant"), [pytest.param(*key, marks=() if key in DEFAULTS else pytest.mark.heavy) for key in OPERATIONS])
def test_the_home_network_is_lowered_to_as_many_operations_as_before(
    lowered_home: Callable[[str, str], GraphModule], target: str, variant: str
) -> None:
    nodes = lowered_home(target, variant).graph.nodes
    assert sum(node.op == "call_function" for node in nodes) == OPERATIONS[target, variant]


def test_every_variant_has_a_number() -> None:
    assert set(OPERATIONS) == {(name, variant) for name, target in TARGETS.items() for variant in target.variants}
