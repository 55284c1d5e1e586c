"""Corrects biases for what rounding weights to int8 moves the mean of each channel by."""

from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.passes.editing import constant
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import run_calibration
from clipstep.export.targets.quantization import COMPUTED_IN
from clipstep.export.targets.sensitivity import of_rounded_weights

aten = torch.ops.aten
CHANNELS = {aten.conv2d.default: 1, aten.linear.default: -1}
"""Operators with a weight and a bias, each with the axis of its output channels."""


def correct_biases(graph: fx.GraphModule, program: StepProgram, weight_levels: int) -> None:
    """Change the biases of convolutions and linear layers in int8 so that rounding their weights does not change the mean of a channel.

    Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, with the means on the frames of the
    calibration.

    Args:
        graph: the step, lowered, with the metadata that `clipstep.export.targets.int8.quantize` writes; it is changed.
        program: its initial states, its sample frames and its calibration videos.
        weight_levels: the largest integer of a weight.
    """
    errors = _MeanErrors(graph, weight_levels)
    run_calibration(errors, program)
    names = {key: f"corrected_bias_{index}" for index, key in enumerate(errors.totals)}
    for node, key in errors.keys.items():
        operand, weight, *others = node.args
        name, shift = names[key], errors.totals[key] / errors.counts[key]
        graph.register_buffer(name, (constant(graph, others[0]) if len(key) > 1 else 0) - shift)
        with graph.graph.inserting_before(node):
            corrected = graph.graph.get_attr(name)
        node.args = (operand, weight, corrected, *others[1:])
    graph.recompile()


class _MeanErrors(fx.Interpreter):
    """Collects for each operation in int8 with a weight and a bias the mean error of each output channel that rounding its weight makes.

    Operations of one weight and one bias, as of several frames, have one mean.
    """

    def __init__(self, graph: fx.GraphModule, weight_levels: int) -> None:
        super().__init__(graph)
        self._weight_levels = weight_levels
        self.keys: dict[fx.Node, tuple[str, ...]] = {}
        """For each operation the name of its weight and, if it has one, that of its bias."""
        self.totals: dict[tuple[str, ...], Tensor] = {}
        self.counts: dict[tuple[str, ...], int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        biases: Any = n.args[2:3]
        if n.target in CHANNELS and n.meta.get(COMPUTED_IN) == torch.int8 and all(one is None or one.op == "get_attr" for one in biases):
            error = of_rounded_weights(self, n, value, self._weight_levels) - value
            by_channel = error.transpose(CHANNELS[n.target], -1).flatten(0, -2)
            key = self.keys[n] = tuple(str(one.target) for one in n.args[1:3] if isinstance(one, fx.Node))
            self.totals[key] = self.totals.get(key, 0) + by_channel.sum(0)
            self.counts[key] = self.counts.get(key, 0) + len(by_channel)
        return value
