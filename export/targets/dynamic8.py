"""Decides which convolutions of a graph that is computed in float16 are of integers of 8 bits, whose ranges the engine finds in each step.

The weights are integers for good. The other operand is rounded in each step, with a scale and a zero point for each frame; the result is a float
again. So nothing has to be known about the values, and nothing else is rounded.
"""

from collections.abc import Mapping

import torch
from torch import fx

from clipstep.export.targets.float16 import PRODUCTS
from clipstep.export.targets.quantization import COMPUTED_IN, DYNAMIC

aten = torch.ops.aten
LEAST_SUMMED = 24
"""How many numbers a convolution adds up for each result, at least: with fewer, rounding takes more ARM64 instructions than integers save."""
LEAST_MAGNITUDE = 0.25
"""How large the largest number of the operand must be. An engine divides 255 by the range of a frame in float16, which ends at 65504: frames of
numbers below 0.004 become wrong, and their errors, of up to 0.01, must be small beside the other frames' numbers."""
NO_CONVOLUTION = "only convolutions are of integers"
POINTWISE = "XNNPACK takes it as a matrix product, and computes those of integers, and what is around them, in float32"
DEPTHWISE = "each of its channels is by itself"
TOO_FEW = "float16 is faster where so few products are added up"
TOO_SMALL = "its values are too small to be rounded"


def mark_convolutions(graph: fx.GraphModule, magnitudes: Mapping[fx.Node, float]) -> dict[fx.Node, str]:
    """Write into the metadata of convolutions in float16 that they are of integers; return the products that are not, each with the reason.

    `magnitudes` are the largest ones of values on sample frames.
    """
    products = [node for node in graph.graph.nodes if node.target in PRODUCTS and node.meta.get(COMPUTED_IN) == torch.float16]
    reasons = {node: reason for node in products if (reason := _reason(graph, node, magnitudes)) is not None}
    for node in products:
        if node not in reasons:
            node.meta[DYNAMIC] = True
    return reasons


def _reason(graph: fx.GraphModule, node: fx.Node, magnitudes: Mapping[fx.Node, float]) -> str | None:
    if node.target is not aten.conv2d.default:
        return NO_CONVOLUTION
    operand, weight = node.args[:2]
    assert isinstance(operand, fx.Node) and isinstance(weight, fx.Node)
    _, in_group, *kernel = getattr(graph, str(weight.target)).shape
    groups = operand.meta["val"].shape[1] // in_group
    if kernel == [1, 1] and groups == 1:
        return POINTWISE
    if in_group == 1:
        return DEPTHWISE
    if in_group * kernel[0] * kernel[1] < LEAST_SUMMED:
        return TOO_FEW
    return TOO_SMALL if magnitudes[operand] < LEAST_MAGNITUDE else None
