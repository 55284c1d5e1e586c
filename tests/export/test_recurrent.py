"""Recurrent and attention networks: lowered to operators that every writer takes, and exported to every target."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from input_networks import OfFrames
from sequence_networks import (
    CHANNELS,
    CLIP,
    FEATURES,
    HIDDEN,
    SIZE,
    Attention,
    LearnedStart,
    Net,
    Volume,
    attention_by_hand,
    band,
    causal,
    made,
    rnn,
    transformer_layer,
)
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export import export
from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.lowering.rules.recurrent import CELLS
from clipstep.export.targets import coreml_operations, executorch, onnx, onnx_operations, xnnpack_operations
from clipstep.runtime import StepModel

aten = torch.ops.aten
TAKEN = {
    executorch.PROFILE: xnnpack_operations.OPERATORS.keys() & coreml_operations.OPERATORS.keys(),
    onnx.PROFILE: onnx_operations.OPERATORS.keys(),
}
PADDED = torch.arange(CLIP)[None] == 2
"""The frames that a padding mask leaves out."""


def _loop(f: Tensor, cell: nn.Module) -> Tensor:
    """A cell by hand, from states of zeros that it makes itself."""
    state: Any = None
    for t in range(f.shape[1]):
        state = cell(f[:, t], state)
    return state[0] if isinstance(state, tuple) else state


def _heads(f: Tensor, count: int = 2) -> Tensor:
    return f.reshape(1, -1, count, FEATURES // count).transpose(1, 2)


class ClassToken(nn.Module):
    """A transformer encoder with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, FEATURES)), nn.Parameter(torch.zeros(1, CLIP + 1, FEATURES))
        self.encoder = nn.TransformerEncoder(transformer_layer(), 2, nn.LayerNorm(FEATURES))

    def forward(self, f: Tensor) -> Tensor:
        return self.encoder(torch.cat([self.token, f], 1) + self.positions)[:, 0]


def _attends(f: Tensor, layer: nn.MultiheadAttention, **settings: Any) -> Tensor:
    return layer(f, f, f, **settings)[0]


def _multihead(**settings: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(FEATURES, 2, batch_first=True, **settings)


RECURRENT: dict[str, tuple[Net, int]] = {
    "LSTM": (Net(lambda f, r: r(f)[0][:, -1], rnn(nn.LSTM)), 1),
    "LSTM, bidirectional, two layers": (Net(lambda f, r: r(f)[0], rnn(nn.LSTM, num_layers=2, dropout=0.5, bidirectional=True)), 4),
    "LSTM with projections": (Net(lambda f, r: r(f)[0].mean(1), rnn(nn.LSTM, proj_size=4)), 1),
    "LSTM without biases": (Net(lambda f, r: r(f)[0][:, -1], rnn(nn.LSTM, bias=False)), 1),
    "LSTM, its states": (Net(lambda f, r: torch.cat(r(f)[1], 2).transpose(0, 1), rnn(nn.LSTM, num_layers=2)), 2),
    "LSTM from a learned state": (Net(lambda f, r: r(f)[:, -1], LearnedStart(rnn(nn.LSTM))), 1),
    "GRU": (Net(lambda f, r: r(f)[0][:, -1], rnn(nn.GRU)), 1),
    "GRU, bidirectional, two layers": (Net(lambda f, r: r(f)[0], rnn(nn.GRU, num_layers=2, bidirectional=True)), 4),
    "GRU, time first": (Net(lambda f, r: r(f.transpose(0, 1))[0][-1], nn.GRU(FEATURES, HIDDEN, bias=False)), 1),
    "GRU without a batch, its states": (Net(lambda f, r: torch.cat([*r(f[0])[1]])[None], nn.GRU(FEATURES, HIDDEN, bidirectional=True)), 2),
    "RNN": (Net(lambda f, r: r(f)[0][:, -1], rnn(nn.RNN)), 1),
    "RNN with relu, two layers": (Net(lambda f, r: r(f)[1][-1], rnn(nn.RNN, nonlinearity="relu", num_layers=2)), 2),
}
"""Each with the number of its layers, counting directions."""
OTHERS: dict[str, Net] = {
    "LSTM cell": Net(_loop, nn.LSTMCell(FEATURES, HIDDEN)),
    "GRU cell": Net(_loop, nn.GRUCell(FEATURES, HIDDEN)),
    "RNN cell": Net(_loop, nn.RNNCell(FEATURES, HIDDEN, nonlinearity="relu")),
    "multi-head attention": Net(_attends, _multihead()),
    "its weights": Net(lambda f, a: torch.cat([a(f, f, f, average_attn_weights=False)[1].flatten(1), a(f, f, f)[1].flatten(1)], 1), _multihead()),
    "time first": Net(lambda f, a: a(*[f.transpose(0, 1)] * 3)[0], nn.MultiheadAttention(FEATURES, 2)),
    "a mask of booleans": Net(lambda f, a: _attends(f, a, attn_mask=band(3)(f.shape[1]), need_weights=False), _multihead()),
    "a mask of numbers": Net(lambda f, a: _attends(f, a, attn_mask=causal(f.shape[1])), _multihead()),
    "causal": Net(lambda f, a: _attends(f, a, attn_mask=causal(f.shape[1]), is_causal=True, need_weights=False), _multihead()),
    "padding": Net(lambda f, a: _attends(f, a, key_padding_mask=PADDED, need_weights=False), _multihead()),
    "padding and a mask": Net(lambda f, a: _attends(f, a, key_padding_mask=PADDED, attn_mask=band(3)(f.shape[1])), _multihead()),
    "keys of other sizes": Net(lambda f, a: a(f[:, -1:], f[..., :5], f[..., :6], need_weights=False)[0], _multihead(kdim=5, vdim=6, bias=False)),
    "added keys": Net(_attends, _multihead(add_bias_kv=True, add_zero_attn=True)),
    "a transformer layer": Net(lambda f, e: e(f), transformer_layer()),
    "norm first, gelu": Net(lambda f, e: e(f, src_key_padding_mask=PADDED), transformer_layer(norm_first=True, activation="gelu")),
    "an encoder with a mask": Net(lambda f, e: e(f, causal(f.shape[1])).mean(1), nn.TransformerEncoder(transformer_layer(), 2)),
    "an encoder and a decoder": Net(lambda f, t: t(f, f[:, :2]), nn.Transformer(FEATURES, 2, 1, 1, 16, batch_first=True)),
    "a class token": Net(lambda f, e: e(f), ClassToken()),
    "attention by hand": Net(lambda f, p: attention_by_hand(f, p, band(3)(f.shape[1])), nn.Linear(FEATURES, 24)),
    "attention by hand, -1e4": Net(lambda f, p: attention_by_hand(f, p, band(3)(f.shape[1]), -1e4), nn.Linear(FEATURES, 24)),
    "scaled dot-product, causal": Net(lambda f: F.scaled_dot_product_attention(*[_heads(f)] * 3, is_causal=True, scale=0.3)),
    "a mask for each head": Net(
        lambda f: F.scaled_dot_product_attention(*[_heads(f)] * 3, attn_mask=torch.stack([~band(3)(f.shape[1]), ~band(1)(f.shape[1])]))
    ),
    "batch norms of other than convolutions": Net(lambda f, a, b: b(a(f[0]).t()[None]), nn.BatchNorm1d(FEATURES), nn.BatchNorm1d(FEATURES)),
    "a number where a mask is": Net(lambda f: torch.where(band(3)(f.shape[1]), 0.5, f)),
    "grouped queries": Net(lambda f: F.scaled_dot_product_attention(_heads(f, 4), *[_heads(f, 4)[:, :2]] * 2, enable_gqa=True)),
}


@torch.no_grad()
def _lowered(network: nn.Module) -> list[fx.GraphModule]:
    """Lower a network with the profiles of two engines, compare each with eager, and return the graphs."""
    step, frames = OfFrames(network).eval(), torch.randn(CLIP, SIZE, SIZE, CHANNELS, generator=torch.Generator().manual_seed(1))
    whole, graphs = simplified(step, (frames,)), []
    for profile, taken in TAKEN.items():
        graphs.append(lower_graph(whole, (frames,), profile))
        torch.testing.assert_close(graphs[-1](frames), step(frames), atol=1e-5, rtol=1e-5)
        used = {node.target for node in graphs[-1].graph.nodes if node.op == "call_function"}
        assert used <= taken, used - taken
    return graphs


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_computes_the_input_products_of_all_frames_at_once(name: str) -> None:
    network, layers = RECURRENT[name]
    unrolled, whole = _lowered(made(network))
    linears: Any = unrolled.graph.find_nodes(op="call_function", target=aten.linear.default)
    rows = [math.prod(node.meta["val"].shape[:-1]) for node in linears]
    assert rows.count(CLIP) == layers + 1  # One is of the features.
    assert "projections" in name or len([node for node in whole.graph.nodes if node.target in CELLS]) == 1  # onnxruntime has recurrent layers.


@pytest.mark.parametrize("name", OTHERS)
def test_cells_and_attention_are_made_of_what_every_writer_takes(name: str) -> None:
    _lowered(made(OTHERS[name]))


class Normed(nn.Module):
    """A convolution of each frame with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Sequential(nn.Conv2d(CHANNELS, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.images[1].running_mean.uniform_(-1, 1)
        self.images[1].running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.images(x[0].transpose(0, 1)).mean((2, 3))


def test_a_batch_norm_after_a_2d_convolution_is_folded() -> None:
    step, frames = OfFrames(Normed()).eval(), torch.randn(CLIP, SIZE, SIZE, CHANNELS)
    whole = simplified(step, (frames,))
    assert not whole.graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default)
    torch.testing.assert_close(whole(frames), step(frames), atol=1e-5, rtol=1e-5)


class IssueNetwork(nn.Module):
    """The plainest CNN and LSTM, as it is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn2d = nn.Sequential(nn.Conv2d(CHANNELS, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.lstm, self.head = nn.LSTM(4, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        f = self.cnn2d(x[0].transpose(0, 1)).flatten(1)[None]
        return self.head(self.lstm(f)[0][:, -1])


class WithStates(nn.Module):
    """A CNN and a GRU whose hidden state is the caller's, and a ConvLSTM cell by hand before it."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(CHANNELS + 2, 8, 3, padding=1)
        self.gru, self.head = nn.GRU(2, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 3)

    def initial_states(self) -> dict[str, Tensor]:
        return {"h": torch.zeros(1, 2, SIZE, SIZE), "c": torch.zeros(1, 2, SIZE, SIZE), "hidden": torch.zeros(1, 1, HIDDEN)}

    def forward(self, x: Tensor, h: Tensor, c: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        features = []
        for t in range(x.shape[2]):
            i, f, g, o = self.gates(torch.cat([x[:, :, t], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            features.append(h.mean((2, 3)))
        output, hidden = self.gru(torch.stack(features, 1), hidden)
        return self.head(output[:, -1]), h, c, hidden


EXPORTS: dict[str, Callable[[], tuple[nn.Module, int | None]]] = {
    "CNN and LSTM": lambda: (IssueNetwork().eval(), None),
    "CNN and LSTM, a stream": lambda: (IssueNetwork().eval(), 2),
    "ConvLSTM and GRU with states": lambda: (WithStates().eval(), None),
    "(2+1)D, attention to three frames and GRU, a stream": lambda: (
        made(Net(lambda f, a, r: r(a(f))[0].mean(1), Attention(band(3)), rnn(nn.GRU), features=Volume())),
        2,
    ),
    "CNN and transformer encoder": lambda: (made(Net(lambda f, e: e(f), ClassToken())), None),
}


HEAVY = ("CNN and LSTM", "(2+1)D, attention to three frames and GRU, a stream")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.heavy if name in HEAVY else ()) for name in EXPORTS])
def test_networks_of_frames_and_sequences_are_exported_to_every_target(name: str, tmp_path: Path) -> None:
    """Export verifies each artifact over steps and a reset. All arithmetic is in one call of the delegate. A stream is the network on the video."""
    torch.manual_seed(0)
    network, stream = EXPORTS[name]()
    sample = torch.randint(256, (2, CLIP, SIZE, SIZE, CHANNELS), dtype=torch.uint8)
    manifest = export(
        network,
        tmp_path / "net.clipstep",
        frames=CLIP,
        size=SIZE,
        labels=["a", "b", "c"],
        mean=[100] * 3,
        std=[60] * 3,
        fps=25,
        sample=sample,
        stream=stream,
    ).manifest
    placement = next(artifact.placement for artifact in manifest.artifacts if artifact.target == "executorch")
    assert list(placement.delegated) == ["XnnpackBackend"] and not placement.not_delegated
    assert {artifact.target for artifact in manifest.artifacts} == {"onnx", "executorch", "coreml"}
    if stream is None:
        return
    with StepModel.load(tmp_path / "net.clipstep") as model, torch.no_grad():
        running = model.stream()
        predictions = [running.push(frame.numpy()) for frame in sample[0]]
        final = running.flush() or predictions[-1]
        video = (sample[0].permute(3, 0, 1, 2)[None].float() - 100) / 60
        torch.testing.assert_close(torch.from_numpy(final.logits)[None], network(video), atol=1e-5, rtol=1e-4)
