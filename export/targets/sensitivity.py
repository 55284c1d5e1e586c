"""Finds the layers of a graph whose rounding to int8 moves the prediction most, by one run with gradients for each step."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.source_lines import module_path, place_of_node
from clipstep.export.step import StepProgram
from clipstep.export.targets.common import SAMPLE_STEPS
from clipstep.export.targets.float16 import PRODUCTS
from clipstep.export.targets.quantization import COMPUTED_IN, MATRIX_PRODUCTS, QUANTIZATION, along_axis, quantized_weight
from clipstep.export.targets.xnnpack_elementwise import CLAMPS


def layers_of(graph: fx.GraphModule) -> dict[fx.Node, str]:
    """Return for each operation the path of the module that it is from, such as `stages.0.conv1` or, if that is the network itself, its operator
    and its line, such as `matmul at mine.py:12`.

    A clamp belongs to the layer that it clamps.
    """
    found: dict[fx.Node, str] = {}
    for node in graph.graph.nodes:
        found[node] = found[node.all_input_nodes[0]] if node.target in CLAMPS else _layer_of(node)
    return found


def _layer_of(node: fx.Node) -> str:
    path = module_path(node)
    if path not in ("", "network"):
        return path.removeprefix("network.")
    operator, place = str(getattr(node.target, "__name__", node.target)).partition(".")[0], place_of_node(node)
    return f"{operator} at {place}" if place else operator


def layer_sensitivities(graph: fx.GraphModule, program: StepProgram, computed: Collection[fx.Node], weight_levels: int) -> dict[str, float]:
    """Return for each layer with operations in int8 what computing it in float32 would spare, as a share of that of all; the largest first.

    That is estimated to first order: errors of rounding on the sample frames, times the gradient of the margin, which is the difference of the two
    largest numbers of the first output. Spared is the rounding of a layer's weights, and of its values that no other operation takes in int8.

    Args:
        graph: the step, whose nodes have the metadata that `quantize` writes.
        program: its initial states, and the sample frames, of which the first are run.
        computed: the operations in int8 that do not only move values.
        weight_levels: the largest integer of a weight.
    """
    layers = layers_of(graph)
    spared = {layers[node]: 0.0 for node in graph.graph.nodes if node in computed}
    states = list(program.states.values())
    for subclip in program.subclips(program.sample)[:SAMPLE_STEPS]:
        run = _WithErrors(graph, layers, computed, weight_levels)
        first, *others = run.run(subclip.to(program.frames.dtype), *states)
        largest = first.flatten().topk(min(2, first.numel())).values
        if largest.requires_grad:  # Something before them is computed in int8.
            (largest[0] - largest[1:].sum()).backward()
        for node, (value, error) in run.found.items():
            spared[layers[node]] += 0.0 if value.grad is None else abs(float((value.grad * error).sum()))
        states = [state.detach() for state in others[: len(states)]]
    total = sum(spared.values()) or 1.0
    return {layer: spared[layer] / total for layer in sorted(spared, key=lambda layer: -spared[layer])}


class _WithErrors(fx.Interpreter):
    """Runs a graph in float32, and keeps in `found`, for each of some operations, its result and the error in it that float32 would spare."""

    def __init__(self, graph: fx.GraphModule, layers: Mapping[fx.Node, str], computed: Collection[fx.Node], weight_levels: int) -> None:
        super().__init__(graph)
        self._layers = layers
        self._computed = computed
        self._weight_levels = weight_levels
        self.found: dict[fx.Node, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n not in self._computed:
            return value
        if not value.requires_grad:
            value = value.detach().clone().requires_grad_()
        value.retain_grad()
        with torch.no_grad():
            rounded = of_rounded_weights(self, n, value, self._weight_levels)
            if not self._is_taken_in_int8(n):
                quantization = n.meta[QUANTIZATION]
                rounded = quantization.numbers(quantization.integers(rounded))
            self.found[n] = value, rounded - value
        return value

    def _is_taken_in_int8(self, node: fx.Node) -> bool:
        """Whether an operation of another layer takes the result of one in int8, directly or after a clamp."""
        return any(
            self._is_taken_in_int8(user) if user.target in CLAMPS else self._layers[user] != self._layers[node]
            for user in node.users
            if user.meta.get(COMPUTED_IN) == torch.int8
        )


def of_rounded_weights(interpreter: fx.Interpreter, node: fx.Node, value: Tensor, weight_levels: int) -> Tensor:
    """Return the result of an operation whose weights are rounded, with the operands of an interpreter that has just run it; `value`, its own result,
    if it has no weights."""
    place = next((i for i, given in enumerate(node.args[:2]) if isinstance(given, fx.Node) and given.op == "get_attr"), None)
    if place is None or node.target not in PRODUCTS:
        return value
    args, kwargs = interpreter.fetch_args_kwargs_from_env(node)
    axis = int(place == 1 and node.target in MATRIX_PRODUCTS)  # That of the output channels.
    integers, scales = quantized_weight(args[place], axis, weight_levels)
    weight = integers * along_axis(scales, axis, integers.ndim)
    result: Tensor = interpreter.call_function(node.target, (*args[:place], weight, *args[place + 1 :]), kwargs)
    return result
