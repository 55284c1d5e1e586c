"""Streams of networks that have recurrent layers or attention over time: the steps compute the network on all frames so far."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
import torch
from sequence_networks import (
    CHANNELS,
    CLASSES,
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
    clip_of_zeros,
    made,
    rnn,
    transformer_layer,
)
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.stream.interpreter import StreamError
from clipstep.export.stream.network import StreamedNetwork

STREAMS: dict[str, Net] = {
    "LSTM, the last step": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.LSTM)),
    "LSTM of two layers, its hidden states": Net(lambda f, r: r(f)[1][0].transpose(0, 1), rnn(nn.LSTM, num_layers=2, dropout=0.5)),
    "LSTM with projections, a slice of the last step": Net(lambda f, r: r(f)[0][:, -1:], rnn(nn.LSTM, proj_size=4)),
    "LSTM from learned states": Net(lambda f, r: r(f)[:, -1], LearnedStart(rnn(nn.LSTM))),
    "GRU of two layers, time first": Net(lambda f, r: r(f.transpose(0, 1))[0][-1], nn.GRU(FEATURES, HIDDEN, 2)),
    "GRU without a batch": Net(lambda f, r: r(f[0])[0][-1:], nn.GRU(FEATURES, HIDDEN, bias=False)),
    "GRU from a learned state, the mean": Net(lambda f, r: r(f).mean(1), LearnedStart(rnn(nn.GRU))),
    "RNN": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.RNN)),
    "RNN with relu": Net(lambda f, r: r(f)[1][-1], rnn(nn.RNN, nonlinearity="relu", num_layers=2)),
    "two layers with a norm and a shortcut between them": Net(
        lambda f, a, n, b: (f + b(n(a(f)[0]))[0]).mean(1),
        nn.GRU(FEATURES, FEATURES, batch_first=True),
        nn.LayerNorm(FEATURES),
        nn.LSTM(FEATURES, FEATURES, batch_first=True),
    ),
    "the last step beside the mean": Net(lambda f, r: torch.cat([(y := r(f)[0])[:, -1], y.mean(1)], 1), rnn(nn.GRU)),
    "convolutions along a sequence, padded in front": Net(lambda f, c: c(F.pad(f.transpose(1, 2), (2, 0))).relu().mean(2), nn.Conv1d(FEATURES, 5, 3)),
    "convolutions along a sequence, without what they pad at the end": Net(
        lambda f, c: c(f.transpose(1, 2))[:, :, : f.shape[1]].mean(2), nn.Conv1d(FEATURES, 5, 3, padding=2)
    ),
    "the features of the frame before": Net(lambda f: torch.cat([f[..., 4:], F.pad(f, (0, 0, 1, 0))[:, : f.shape[1], :4]], 2)[:, -1]),
    "what changes from frame to frame": Net(lambda f: (f - F.pad(f, (0, 0, 1, 0))[:, : f.shape[1]]).abs().mean(1)),
    "attention within each frame": Net(
        lambda f, a: a(*[f.reshape(-1, 4, 2)] * 3, need_weights=False)[0].reshape(1, -1, 8).mean(1), nn.MultiheadAttention(2, 1, batch_first=True)
    ),
    "a class token in each frame": Net(
        lambda f, e, t: e(torch.cat([t.weight.reshape(1, 1, 2).expand(f.shape[1], -1, -1), f.reshape(-1, 4, 2)], 1))[None, :, 0].mean(1),
        nn.TransformerEncoderLayer(2, 1, 4, batch_first=True),
        nn.Linear(2, 1, bias=False),
    ),
    "attention to three frames": Net(lambda f, a: a(f)[:, -1], Attention(band(3))),
    "attention to its own frame": Net(lambda f, a: a(f).mean(1), Attention(band(1))),
    "attention that favours new frames": Net(
        lambda f, a: a(f).mean(1),
        Attention(
            lambda count: torch.zeros(count, count).masked_fill(band(4)(count), -torch.inf) - torch.arange(count)[:, None] + torch.arange(count)
        ),
    ),
    "a transformer layer": Net(lambda f, e: e(f, band(3)(f.shape[1])).mean(1), transformer_layer(norm_first=True, activation="gelu")),
    "two transformer layers": Net(lambda f, e: e(f, band(3)(f.shape[1]))[:, -1], nn.TransformerEncoder(transformer_layer(), 2)),
    "attention by hand": Net(lambda f, p: attention_by_hand(f, p, band(3)(f.shape[1])).mean(1), nn.Linear(FEATURES, 24)),
    "attention by hand with a scale after the mask": Net(
        lambda f, q, k: (((q(f) @ k(f).mT + torch.where(band(2)(f.shape[1]), -1e9, 0.0)) * 0.3).softmax(2) @ f)[:, -1],
        nn.Linear(8, 4),
        nn.Linear(8, 4),
    ),
    "attention whose weights are computed too": Net(
        lambda f, a: a(f, f, f, attn_mask=band(3)(f.shape[1]))[0].mean(1), nn.MultiheadAttention(FEATURES, 2, batch_first=True)
    ),
}


def loop(f: Tensor, cell: nn.Module, state: Any = None) -> Tensor:
    """A cell by hand: its outputs `(1, T, HIDDEN)`."""
    outputs = []
    for t in range(f.shape[1]):
        state = cell(f[:, t], state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1)


class EachFrame(nn.Module):
    """A 2D network that is called on each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, FEATURES, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(x[:, :, t]).relu().mean((2, 3)) for t in range(x.shape[2])], dim=1)


class ConvLSTM(nn.Module):
    """A ConvLSTM cell by hand, whose last output counts, and which begins with what `start` returns."""

    def __init__(self, start: Callable[[Tensor], Tensor] = lambda x: torch.zeros(1, 2, SIZE, SIZE)) -> None:
        super().__init__()
        self.gates, self.start = nn.Conv2d(CHANNELS + 2, 8, 3, padding=1), start

    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        for t in range(x.shape[2]):
            i, f, g, o = self.gates(torch.cat([x[:, :, t], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h.mean((2, 3))


def average(f: Tensor) -> Tensor:
    """A moving average."""
    value = torch.zeros(1, FEATURES)
    for frame in f.unbind(1):
        value = 0.5 * value + 0.5 * frame
    return value


STREAMS |= {
    "an LSTM cell by hand": Net(lambda f, c: loop(f, c)[:, -1], nn.LSTMCell(FEATURES, HIDDEN)),
    "a GRU cell by hand, the mean": Net(lambda f, c: loop(f, c, torch.ones(1, HIDDEN)).mean(1), nn.GRUCell(FEATURES, HIDDEN)),
    "an RNN cell by hand, then a GRU": Net(
        lambda f, c, r: r(loop(f, c))[0][:, -1], nn.RNNCell(FEATURES, HIDDEN), nn.GRU(HIDDEN, 4, batch_first=True)
    ),
    "a network called on each frame": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.GRU), features=EachFrame()),
    "a ConvLSTM by hand": Net(lambda f: f, features=ConvLSTM()),
    "a ConvLSTM from new zeros": Net(lambda f: f, features=ConvLSTM(lambda x: x.new_zeros(1, 2, SIZE, SIZE))),
    "a ConvLSTM from a new number": Net(lambda f: f, features=ConvLSTM(lambda x: x.new_full((1, 2, SIZE, SIZE), 0.5))),
    "a moving average by hand": Net(average),
}
LATE: dict[str, Net] = {
    "LSTM, the last step": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.LSTM), features=Volume()),
    "GRU, the mean": Net(lambda f, r: r(f)[0].mean(1), rnn(nn.GRU), features=Volume()),
    "GRU, the hidden state": Net(lambda f, r: r(f)[1][-1], rnn(nn.GRU), features=Volume(5, 2)),
    "LSTM from learned states": Net(lambda f, r: r(f)[:, -1], LearnedStart(rnn(nn.LSTM)), features=Volume(5, 2)),
    "no padding": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.GRU), features=Volume(4, 0)),
    "RNN and a convolution after it": Net(
        lambda f, r, c: c(r(f)[0].transpose(1, 2)).mean(2), rnn(nn.RNN), nn.Conv1d(HIDDEN, 4, 3, padding=1), features=Volume()
    ),
    "attention to three frames": Net(lambda f, a: a(f)[:, -1], Attention(band(3)), features=Volume()),
    "an LSTM cell by hand, the last step": Net(lambda f, c: loop(f, c)[:, -1], nn.LSTMCell(FEATURES, HIDDEN), features=Volume(4, 1)),
    "GRU, which looks less far ahead at the end": Net(lambda f, r: r(f)[1][-1], rnn(nn.GRU), features=Volume(4, 1)),
    "a transformer layer, then a GRU": Net(
        lambda f, e, r: r(e(f, band(2)(f.shape[1])))[0].mean(1), transformer_layer(), rnn(nn.GRU), features=Volume(5, 2)
    ),
    "sizes that depend on the number of frames": Net(
        lambda f, r: r(f.reshape(f.shape[1], 1, FEATURES))[0].mean(0), nn.GRU(FEATURES, HIDDEN), features=Volume()
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", STREAMS)
@torch.no_grad()
def test_steps_are_the_network_on_all_frames_so_far(name: str, frames: int = 2) -> None:
    network = made(STREAMS[name])
    streamed = StreamedNetwork(network, clip_of_zeros(), frames)
    assert (streamed.delay, streamed.flush_steps) == (0, 0)
    states, video = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 5 * frames, SIZE, SIZE)
    for step in range(1, 6):
        so_far = video[:, :, : step * frames]
        logits, *states = streamed(so_far[:, :, -frames:], *states)
        torch.testing.assert_close(logits, network(so_far), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(streamed.clip(so_far), network(so_far), atol=1e-5, rtol=1e-5)


def test_steps_of_one_frame() -> None:
    test_steps_are_the_network_on_all_frames_so_far("two layers with a norm and a shortcut between them", 1)
    test_steps_are_the_network_on_all_frames_so_far("attention to three frames", 1)


HEAVY = ("an LSTM cell by hand, the last step", "a transformer layer, then a GRU")


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        *(pytest.param(name, 3, marks=pytest.mark.heavy if name in HEAVY else ()) for name in LATE),
        ("LSTM, the last step", 1),
        ("GRU, the hidden state", 1),
        ("no padding", 2),
    ],
)
@torch.no_grad()
def test_a_network_that_looks_ahead_is_late_and_ends_as_the_network_on_the_whole_video(name: str, frames: int) -> None:
    network = made(LATE[name])
    streamed = StreamedNetwork(network, clip_of_zeros(), frames)
    states, video, compared = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 5 * frames, SIZE, SIZE), 0
    for step in range(1, 6):
        so_far = video[:, :, : step * frames]
        logits, *states = streamed(so_far[:, :, -frames:], *states)
        if (expected := _without_the_end(network, so_far, streamed.delay)) is not None:
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(streamed.clip(so_far), expected, atol=1e-5, rtol=1e-5)
            compared += 1
        if step * frames >= streamed.min_frames and streamed.flush_steps:
            torch.testing.assert_close(_flushed(streamed, states), network(so_far), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(streamed.clip(so_far, ended=True), network(so_far), atol=1e-5, rtol=1e-5)
            compared += 1
    assert compared > 1


def _without_the_end(network: Net, video: Tensor, delay: int) -> Tensor | None:
    """The network on its features without those that a longer video would change; None if there are none, or if another part looks ahead too."""
    features = network.features(video)[:, : video.shape[2] - delay] if video.shape[2] > max(delay, 3) else torch.zeros(1, 0, FEATURES)
    if not features.shape[1] or any(isinstance(part, nn.Conv1d) for part in network.parts):
        return None
    return network.head(network.function(features, *network.parts).flatten(1))


def _flushed(streamed: StreamedNetwork, states: list[Tensor]) -> Tensor:
    """The logits after the end of the video, whose steps get arbitrary frames."""
    ending = [torch.ones(1, 1) if name == "ended" else value for name, value in zip(streamed.initial_states(), states, strict=True)]
    for _ in range(streamed.flush_steps):
        logits, *ending = streamed(torch.full((1, CHANNELS, streamed.frames, SIZE, SIZE), 7.0), *ending)
    return logits


@torch.no_grad()
def test_a_window_limits_attention_to_all_earlier_frames() -> None:
    """Each query sees the newest 4 frames, and the mean is over the outputs of the newest 4."""
    parts = rnn(nn.GRU), Attention(causal)
    network = made(Net(lambda f, r, a: a(r(f)[0][..., :1] + f).mean(1), *parts))
    streamed = StreamedNetwork(network, clip_of_zeros(), 2, window=2)
    states, video = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 12, SIZE, SIZE)
    for step in range(1, 7):
        logits, *states = streamed(video[:, :, 2 * step - 2 : 2 * step], *states)
        features = network.features(video[:, :, : 2 * step])
        parts[1].mask = band(4)
        outputs = parts[1](parts[0](features)[0][..., :1] + features)
        parts[1].mask = causal
        torch.testing.assert_close(logits, network.head(outputs[:, -4:].mean(1)), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(streamed.clip(video[:, :, : 2 * step]), logits, atol=1e-5, rtol=1e-5)


class Fixed(nn.Module):
    """Attention with a mask for clips of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", ~band(3)(8))

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, self.mask)


def _decaying(f: Tensor) -> Tensor:
    return sum((f[:, t] * 0.5**t for t in range(f.shape[1])), torch.zeros(1, FEATURES))


REFUSED: dict[str, tuple[Net, str]] = {
    "bidirectional": (
        Net(lambda f, r: r(f)[0].mean(1), rnn(nn.LSTM, bidirectional=True)),
        "aten.lstm.input reads the frames backwards too, from the last frame of the video, which a stream does not have yet",
    ),
    "hidden states from the frames": (
        Net(lambda f, r: r(f, f[:, :1, :HIDDEN] * 1)[0][:, -1], rnn(nn.GRU)),
        "hidden states that are computed from the frames",
    ),
    "along another axis": (
        Net(lambda f, r: r(f.reshape(-1, 4, 2))[0].reshape(1, -1, 12).mean(1), nn.GRU(2, 3, batch_first=True)),
        "another axis than time",
    ),
    "a loop with a factor for each frame": (Net(_decaying), "takes a frame of the clip by its number"),
    "the first frame": (Net(lambda f: f[:, 0]), "takes a frame of the clip by its number"),
    "a loop from the first frame": (
        Net(lambda f, c: reduce(lambda h, frame: c(frame, h), f[:, 1:].unbind(1), f[:, 0, :HIDDEN]), nn.GRUCell(FEATURES, HIDDEN)),
        "takes a frame of the clip by its number",
    ),
    "frames backwards": (Net(lambda f, c: loop(f.flip(1), c)[:, -1], nn.GRUCell(FEATURES, HIDDEN)), "aten.flip.default has no rule"),
    "attention to all frames": (Net(lambda f, a: a(f).mean(1), Attention(None)), "attends to later frames"),
    "attention to all earlier frames": (Net(lambda f, a: a(f).mean(1), Attention(causal)), "attends to all frames so far, whose number has no bound"),
    "is_causal": (Net(lambda f: F.scaled_dot_product_attention(f, f, f, is_causal=True).mean(1)), "attends to all frames so far"),
    "a mask of its own for each frame": (
        Net(lambda f, a: a(f).mean(1), Attention(lambda n: band(3)(n) | (torch.arange(n) == 2) & ~torch.eye(n).bool())),
        "a mask that differs from frame to frame",
    ),
    "attention by einsum": (
        Net(lambda f: torch.einsum("bts,bsd->btd", torch.einsum("btd,bsd->bts", f, f).softmax(2), f).mean(1)),
        "attention over time by hand",
    ),
    "a position for each frame": (
        Net(lambda f, p: (f + p.weight).mean(1), nn.Linear(FEATURES, 8, bias=False)),
        "differs from frame to frame, such as a position",
    ),
    "the largest over time": (Net(lambda f: f.amax(1)), "reduces time by other than a mean or the last frame"),
    "a norm over time": (Net(lambda f, n: n(f.transpose(1, 2)).mean(2), nn.GroupNorm(2, FEATURES)), "normalises over time"),
    "all outputs": (Net(lambda f, r: r(f)[0].flatten(1), rnn(nn.GRU)), "joins or splits the axis of time"),
    "different frames": (
        Net(lambda f, c: torch.cat([f.mean(1), c(f.transpose(1, 2))[:, :, -1]], 1), nn.Conv1d(FEATURES, 2, 3, padding=1)),
        "several of different frames; got 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_stream_is_named_with_its_reason(name: str) -> None:
    network, reason = REFUSED[name]
    with pytest.raises(StreamError, match=reason):
        StreamedNetwork(made(network), clip_of_zeros(), 2)


def test_a_window_needs_a_mean() -> None:
    with pytest.raises(StreamError, match="predictions are of its last frame or of hidden states, which have no window"):
        StreamedNetwork(made(STREAMS["LSTM, the last step"]), clip_of_zeros(), 2, window=2)


@torch.no_grad()
def test_a_network_for_clips_of_one_length_cannot_be_compared() -> None:
    streamed = StreamedNetwork(made(Net(lambda f, a: a(f).mean(1), Fixed())), clip_of_zeros(), 2)
    with pytest.raises(StreamError, match="the network fails on a clip of 10 frames, with which the steps have to be compared"):
        streamed.clip(torch.zeros(1, CHANNELS, 10, SIZE, SIZE))


@torch.no_grad()
def test_a_pool_whose_kernel_is_the_clip_is_a_mean_of_all_frames() -> None:
    """As in the head of X3D. The network itself takes no shorter clip, so that the steps are compared with a mean."""
    torch.manual_seed(0)
    layers = nn.Conv3d(CHANNELS, FEATURES, 1), nn.ReLU(), nn.Flatten(), nn.Linear(FEATURES, CLASSES)
    pooled, mean = (nn.Sequential(*layers[:2], pool, *layers[2:]).eval() for pool in (nn.AvgPool3d((CLIP, SIZE, SIZE)), nn.AdaptiveAvgPool3d(1)))
    streamed = StreamedNetwork(pooled, clip_of_zeros(), 1)
    states, video = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 5, SIZE, SIZE)
    for step in range(1, 6):
        logits, *states = streamed(video[:, :, step - 1 : step], *states)
        torch.testing.assert_close(logits, mean(video[:, :, :step]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(streamed.clip(video[:, :, :step]), mean(video[:, :, :step]), atol=1e-5, rtol=1e-5)
