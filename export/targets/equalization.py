"""Equalises the channels between two convolutions before they are rounded to int8: cross-layer equalisation.

All channels of a value share a scale in int8, so that of channels with a small range little is left. The weights of a convolution are divided by a
factor for each output channel, and those of the next one multiplied by it, which changes nothing in floats (M. Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019). The factors are those that divide the loss between the values and the next weights
equally, for the ranges on sample frames (G. Xiao et al., "SmoothQuant", ICML 2023, with a strength of one half), rounded to powers of two.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clipstep.export.lowering.operators import CONVOLUTIONS, arguments, triple
from clipstep.export.lowering.passes.editing import convolution_constants, set_convolution_constants
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import run_sample

aten = torch.ops.aten
BETWEEN = frozenset((aten.relu.default, aten.channel_shuffle.default, aten.alias.default, aten.clone.default))
"""Operators of which each channel of the result is one of the operand's, times the same factor."""


def equalized(graph: fx.GraphModule, program: StepProgram) -> fx.GraphModule:
    """Return a simplified graph of rank 5 that computes the same, up to the rounding of floats, with channels of more equal ranges.

    Changed are convolutions of constant weights that follow one another, with nothing between but what keeps channels apart, and no other reader.

    Args:
        graph: as `clipstep.export.lowering.lower.simplified` returns it.
        program: its initial states, and the sample frames, of which the first are run.
    """
    graph = copy.deepcopy(graph)
    chains = [chain for node in graph.graph.nodes if (chain := _chain(node))]
    largest = _largest_of_channels(graph, program, [chain[-2] for chain in chains])
    for chain in chains:
        first, operand, second = chain[0], chain[-2], chain[-1]
        weight, bias = convolution_constants(graph, second)
        outputs, inputs = weight.shape[:2]
        groups = len(largest[operand]) // inputs
        rows = weight.abs().flatten(2).amax(2)
        rows = rows / rows.amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)  # Each output channel has a scale of its own.
        factors = _factors(largest[operand], rows.reshape(groups, outputs // groups, inputs).amax(1).flatten())
        by_output = factors.reshape(groups, inputs).repeat_interleave(outputs // groups, 0)
        set_convolution_constants(graph, second, weight * by_output.reshape(outputs, inputs, 1, 1, 1), bias)
        divisors = torch.empty_like(factors).scatter_(0, _sources(chain, len(factors)), factors)
        weight, bias = convolution_constants(graph, first)
        set_convolution_constants(graph, first, weight / divisors.reshape(-1, 1, 1, 1, 1), None if bias is None else bias / divisors)
    graph.graph.lint()
    graph.recompile()
    return graph


def _chain(second: fx.Node) -> list[fx.Node]:
    """Return a convolution, what stands between, and this one, if it alone reads the result of the first; otherwise nothing."""
    if not _is_of_constants(second):
        return []
    before: list[Any] = [second.args[0]]
    while before[-1].target in BETWEEN and len(before[-1].users) == 1:
        before.append(before[-1].args[0])
    return [*before[::-1], second] if _is_of_constants(before[-1]) and len(before[-1].users) == 1 else []


def _is_of_constants(node: fx.Node) -> bool:
    return node.target in CONVOLUTIONS and all(one is None or one.op == "get_attr" for one in arguments(node, None, None, None)[1:3])


def _sources(chain: Sequence[fx.Node], channels: int) -> Tensor:
    """Return for each channel that the second convolution reads which output channel of the first one it is."""
    numbers: Any = torch.arange(channels, dtype=torch.float32).reshape(1, channels, 1, 1, 1)
    for node in chain[1:-1]:
        function: Any = node.target
        numbers = function(numbers, *node.args[1:], **node.kwargs)
    sources: Tensor = numbers.flatten().long()
    return sources


def _factors(values: Tensor, weights: Tensor) -> Tensor:
    """Return powers of two by which channels are divided, from their largest magnitudes and those of the weights that multiply them. Channels that
    are always 0 get the least factor, so that their weights are not large beside others."""
    used = (values > 0) & (weights > 0)
    if not bool(used.any()):
        return torch.ones_like(values)
    exponents = torch.round(torch.log2(values[used] / weights[used]) / 2)
    factors = torch.full_like(values, float(torch.exp2(exponents.min() - exponents.max())))
    factors[used] = torch.exp2(exponents - exponents.max())
    return factors


def _largest_of_channels(graph: fx.GraphModule, program: StepProgram, nodes: list[Any]) -> dict[Any, Tensor]:
    """Run the sample frames, and return the largest magnitude of each channel of some values."""
    found: dict[Any, Tensor] = {}

    class Magnitudes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in nodes:
                largest = value.abs().amax((0, 2, 3, 4))
                found[n] = torch.maximum(found.get(n, largest), largest)
            return value

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            if target is aten.avg_pool3d.default and len(args) > 3 and all(args[5:6]):
                # PyTorch refuses a value that is smaller than a window, whatever its padding.
                value, kernel, stride, padding, *others = args
                amounts = [amount for size in reversed(triple(padding)) for amount in (size, size)]
                args = (F.pad(value, amounts), kernel, stride, 0, *others)
            return super().call_function(target, args, kwargs)

    run_sample(Magnitudes(graph), program)
    return found
