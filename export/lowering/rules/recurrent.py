"""Rules for recurrent layers: LSTM, GRU and RNN, of any number of layers, in one or both directions.

They are unrolled over the frames into linear layers and pointwise operators. The products with the inputs of all frames are one matrix product.
An engine that has recurrent layers gets them whole, unless there is only one frame, their weights are computed, or the hidden state is projected.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.compat.torch_internals import is_traced
from clipstep.export.lowering.profile import EngineProfile

aten = torch.ops.aten
States = tuple[Tensor, ...]
Cell = Callable[[Sequence[Tensor], States, Callable[[Tensor], Tensor]], States]
"""Computes the states of a frame from the parts of its input product, the states before it, and the linear layer of the first of them."""


def _cut(x: Tensor, count: int) -> list[Tensor]:
    size = x.shape[-1] // count
    return [x[..., place * size : (place + 1) * size] for place in range(count)]


def lstm_cell(parts: Sequence[Tensor], states: States, hidden_product: Callable[[Tensor], Tensor]) -> States:
    hidden, cell = states
    into, forget, new, out = _cut(parts[0] + hidden_product(hidden), 4)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def gru_cell(parts: Sequence[Tensor], states: States, hidden_product: Callable[[Tensor], Tensor]) -> States:
    (hidden,) = states
    size = hidden.shape[-1]
    product = hidden_product(hidden)
    reset, update = _cut((parts[0] + product[..., : 2 * size]).sigmoid(), 2)
    new = (parts[1] + reset * product[..., 2 * size :]).tanh()
    return (new + update * (hidden - new),)


def rnn_cell(activation: Callable[[Tensor], Tensor], parts: Sequence[Tensor], states: States, hidden_product: Callable[[Tensor], Tensor]) -> States:
    return (activation(parts[0] + hidden_product(states[0])),)


def _unrolled(
    cell: Cell,
    x: Tensor,
    initial: States,
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Return the outputs of all frames, and the states after the last one. The arguments are those of `aten.lstm.input`."""
    directions = 2 if bidirectional else 1
    count = len(weights) // (layers * directions)
    value, after = x.transpose(0, 1) if batch_first else x, list[States]()
    for layer in range(layers):
        outputs = []
        for place in range(layer * directions, (layer + 1) * directions):
            own = weights[place * count : (place + 1) * count]
            states = tuple(start[place] for start in initial)
            frames, states = _direction(cell, value, states, own, has_biases, backwards=place % directions == 1)
            outputs.append(torch.cat([frame.unsqueeze(0) for frame in frames]))
            after.append(states)
        value = torch.cat(outputs, -1) if bidirectional else outputs[0]
    ends = [torch.cat([state.unsqueeze(0) for state in kind]) for kind in zip(*after, strict=True)]
    return (value.transpose(0, 1) if batch_first else value, *ends)


def _direction(cell: Cell, x: Tensor, states: States, weights: Sequence[Tensor], has_biases: bool, *, backwards: bool) -> tuple[list[Tensor], States]:
    """Run one layer in one direction over `x` `(T, N, D)`; a weight more than usual projects the hidden state."""
    biases, rest = (weights[2:4], weights[4:]) if has_biases else ((None, None), weights[2:])
    products = F.linear(x, weights[0], biases[0])
    parts = [products[..., : 2 * states[0].shape[-1]], products[..., 2 * states[0].shape[-1] :]] if cell is gru_cell else [products]
    frames: list[Any] = [None] * len(x)
    for t in reversed(range(len(x))) if backwards else range(len(x)):
        hidden, *others = cell([part[t] for part in parts], states, lambda hidden: F.linear(hidden, weights[1], biases[1]))
        hidden = F.linear(hidden, rest[0]) if rest else hidden
        states = (hidden, *others)
        frames[t] = hidden
    return frames, states


def _rule(operation: Any, cell: Cell) -> Callable[..., Any]:
    def rule(profile: EngineProfile, x: Tensor, initial: Any, weights: Sequence[Tensor], *settings: Any) -> Any:
        has_biases, layers, _, _, bidirectional, batch_first = settings
        is_projected = len(weights) // (layers * (2 if bidirectional else 1)) > (4 if has_biases else 2)
        several = x.shape[1 if batch_first else 0] > 1
        if profile.recurrent_layers and several and not is_projected and not any(map(is_traced, weights)):
            return operation(x, initial, weights, *settings)
        return _unrolled(cell, x, tuple(initial) if isinstance(initial, list | tuple) else (initial,), weights, *settings)

    return rule


CELLS: dict[Any, Cell] = {
    aten.lstm.input: lstm_cell,
    aten.gru.input: gru_cell,
    aten.rnn_tanh.input: partial(rnn_cell, torch.tanh),
    aten.rnn_relu.input: partial(rnn_cell, torch.relu),
}
RULES: dict[Any, Callable[..., Any]] = {operation: _rule(operation, cell) for operation, cell in CELLS.items()}
