"""Writes recurrent layers as ONNX: a node for each layer, of both directions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipstep.export.targets.onnx_graph import OnnxGraph

aten = torch.ops.aten


def recurrent(operation: str, gates: Sequence[int], activation: str | None = None, **attributes: int) -> Callable[..., tuple[str, ...]]:
    """Return a function that writes layers, whose weights are constants and do not project the hidden state: the lowering unrolls others.

    `gates` has the places of PyTorch's gates in the order in which ONNX has them.
    """

    def write(
        graph: OnnxGraph,
        x: str,
        initial: Any,
        weights: Sequence[Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        training: bool,
        bidirectional: bool,
        batch_first: bool,
        *,
        before: Sequence[int],
    ) -> tuple[str, ...]:
        directions = 2 if bidirectional else 1
        count = len(weights) // (layers * directions)
        starts = initial if isinstance(initial, list | tuple) else [initial]
        frames, batch = (before[1], before[0]) if batch_first else (before[0], before[1])
        size = weights[1].shape[1]
        value = graph.add("Transpose", x, perm=[1, 0, 2]) if batch_first else x
        settings: dict[str, Any] = {"hidden_size": size, "direction": "bidirectional" if bidirectional else "forward", **attributes}
        if activation is not None:
            settings["activations"] = [activation] * directions
        ends: list[tuple[str, ...]] = []
        for layer in range(layers):
            own = [weights[(layer * directions + way) * count :][:count] for way in range(directions)]
            input_weights, hidden_weights, *biases = (torch.stack([_ordered(one[place], gates) for one in own]) for place in range(count))
            inputs = [graph.constant(input_weights), graph.constant(hidden_weights), graph.constant(torch.cat(biases, 1)) if biases else "", ""]
            states = [_states(graph, start, layer * directions, directions, layers) for start in starts]
            outputs, *after = graph.add_outputs(operation, value, *inputs, *states, count=1 + len(starts), **settings)
            if bidirectional:
                outputs = graph.add("Transpose", outputs, perm=[0, 2, 1, 3])
            value = graph.add("Reshape", outputs, graph.constant([frames, batch, directions * size]))
            ends.append(tuple(after))
        last = [kind[0] if layers == 1 else graph.add("Concat", *kind, axis=0) for kind in zip(*ends, strict=True)]
        return (graph.add("Transpose", value, perm=[1, 0, 2]) if batch_first else value, *last)

    return write


def _ordered(weight: Tensor, gates: Sequence[int]) -> Tensor:
    parts = weight.detach().chunk(len(gates))
    return torch.cat([parts[gate] for gate in gates])


def _states(graph: OnnxGraph, start: Any, first: int, count: int, layers: int) -> str:
    """Return the initial states of a layer's directions. Zeros are left out."""
    if isinstance(start, Tensor):
        own = start[first : first + count]
        return graph.constant(own) if bool(own.any()) else ""
    if layers == 1:
        return str(start)
    return graph.add("Slice", start, *(graph.constant([number]) for number in (first, first + count, 0)))


OPERATORS: dict[Any, Callable[..., Any]] = {
    aten.lstm.input: recurrent("LSTM", (0, 3, 1, 2)),
    aten.gru.input: recurrent("GRU", (1, 0, 2), linear_before_reset=1),
    aten.rnn_tanh.input: recurrent("RNN", (0,), "Tanh"),
    aten.rnn_relu.input: recurrent("RNN", (0,), "Relu"),
}
