"""Recurrent and attention networks: lowered, exported, and as streams."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.stream.interpreter import StreamError
from clipstep.export.stream.network import StreamedNetwork

CHANNELS, FEATURES, HIDDEN, CLASSES = 3, 8, 6, 3
SIZE = 6


class Images(nn.Module):
    """A 2D network on each frame: `(1, C, T, H, W)` to `(1, T, FEATURES)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(CHANNELS, 4, 3, 2, 1), nn.Linear(4 * 3 * 3, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x[0].transpose(0, 1)).relu().flatten(1))[None]


class Volume(nn.Module):
    """A (2+1)D network that looks one frame ahead: `(1, C, T, H, W)` to `(1, T, FEATURES)`."""

    def __init__(self, kernel: int = 3, padding: int = 1) -> None:
        super().__init__()
        self.space, self.time = nn.Conv3d(CHANNELS, 4, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.Conv3d(4, FEATURES, (kernel, 1, 1), 1, (padding, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.space(x).relu()).mean((3, 4)).transpose(1, 2)


class Net(nn.Module):
    """Features of each frame, what a function makes of them with modules of its own, and a linear layer."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module, features: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = features or Images()
        self.function, self.parts = function, nn.ModuleList(parts)
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.function(self.features(frames), *self.parts).flatten(1))


def made(network: Net) -> Net:
    """Run a network once, which makes its head, and put it into evaluation mode."""
    with torch.no_grad():
        network(torch.zeros(1, CHANNELS, 8, SIZE, SIZE))
    return network.eval()


def rnn(kind: type[nn.RNNBase], **settings: object) -> nn.RNNBase:
    return kind(FEATURES, HIDDEN, batch_first=True, **settings)


class LearnedStart(nn.Module):
    """A recurrent layer from a learned hidden state."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.start = layer, nn.Parameter(torch.randn(1, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, (self.start, 2 * self.start) if isinstance(self.layer, nn.LSTM) else self.start)[0]


STREAMS: dict[str, Net] = {
    "LSTM, the last step": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.LSTM)),
    "LSTM, the mean": Net(lambda f, r: r(f)[0].mean(1), rnn(nn.LSTM)),
    "LSTM of two layers, its hidden states": Net(lambda f, r: r(f)[1][0].transpose(0, 1), rnn(nn.LSTM, num_layers=2, dropout=0.5)),
    "LSTM with projections, a slice of the last step": Net(lambda f, r: r(f)[0][:, -1:], rnn(nn.LSTM, proj_size=4)),
    "LSTM from learned states": Net(lambda f, r: r(f)[:, -1], LearnedStart(rnn(nn.LSTM))),
    "GRU": Net(lambda f, r: r(f)[0][:, -1], rnn(nn.GRU)),
    "GRU, time first": Net(lambda f, r: r(f.transpose(0, 1))[0][-1], nn.GRU(FEATURES, HIDDEN, 2)),
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
    "the last frame alone beside a mean": Net(lambda f: torch.cat([f[:, -1], f.mean(1)], 1)),
    "convolutions along time by F.pad": Net(lambda f, c: c(F.pad(f.transpose(1, 2), (2, 0))).relu().mean(2), nn.Conv1d(FEATURES, 5, 3)),
    "attention within each frame": Net(
        lambda f, a: a(*[f.reshape(-1, 4, 2)] * 3, need_weights=False)[0].reshape(1, -1, 8).mean(1), nn.MultiheadAttention(2, 1, batch_first=True)
    ),
}


class Attention(nn.Module):
    """Attention over time by a function of the number of frames that gives the mask."""

    def __init__(self, mask: Callable[[int], Tensor] | None, heads: int = 2, **settings: object) -> None:
        super().__init__()
        self.mask, self.layer = mask, nn.MultiheadAttention(FEATURES, heads, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Tensor:
        mask = None if self.mask is None else self.mask(x.shape[1])
        return self.layer(x, x, x, attn_mask=mask, need_weights=False)[0]


def band(window: int) -> Callable[[int], Tensor]:
    """The mask by which a query sees the newest `window` frames; True stands for what it does not see, as in nn.MultiheadAttention."""
    return lambda count: ~torch.ones(count, count).tril().triu(1 - window).bool()


STREAMS |= {
    "attention to three frames": Net(lambda f, a: a(f)[:, -1], Attention(band(3))),
    "attention to its own frame": Net(lambda f, a: a(f).mean(1), Attention(band(1))),
    "attention that favours new frames": Net(
        lambda f, a: a(f).mean(1),
        Attention(lambda n: torch.zeros(n, n).masked_fill(band(4)(n), -torch.inf) + torch.arange(n) - torch.arange(n)[:, None]),
    ),
    "a transformer layer": Net(
        lambda f, e: e(f, band(3)(f.shape[1])).mean(1),
        nn.TransformerEncoderLayer(FEATURES, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
    ),
    "two transformer layers": Net(
        lambda f, e: e(f, band(3)(f.shape[1]))[:, -1], nn.TransformerEncoder(nn.TransformerEncoderLayer(FEATURES, 2, 16, batch_first=True), 2)
    ),
}


def by_hand(f: Tensor, projection: nn.Module) -> Tensor:
    q, k, v = projection(f).reshape(1, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1) / 2).masked_fill(band(3)(f.shape[1]), -torch.inf)
    return (F.dropout(scores.softmax(-1), 0.5, training=False) @ v).transpose(1, 2).flatten(2)


STREAMS |= {
    "attention by hand": Net(lambda f, p: by_hand(f, p).mean(1), nn.Linear(FEATURES, 24)),
    "attention by hand with -1e9": Net(
        lambda f, q, k: (((q(f) @ k(f).mT + torch.where(band(2)(f.shape[1]), -1e9, 0.0)) * 0.3).softmax(2) @ f)[:, -1],
        nn.Linear(8, 4),
        nn.Linear(8, 4),
    ),
    "attention whose weights are computed too": Net(
        lambda f, a: a(f, f, f, attn_mask=band(3)(f.shape[1]))[0].mean(1), nn.MultiheadAttention(FEATURES, 2, batch_first=True)
    ),
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
    "a transformer layer, then a GRU": Net(
        lambda f, e, r: r(e(f, band(2)(f.shape[1])))[0].mean(1),
        nn.TransformerEncoderLayer(FEATURES, 2, 16, batch_first=True),
        rnn(nn.GRU),
        features=Volume(5, 2),
    ),
    "sizes that depend on the number of frames": Net(
        lambda f, r: r(f.reshape(f.shape[1], 1, FEATURES))[0].mean(0), nn.GRU(FEATURES, HIDDEN), features=Volume()
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", STREAMS)
@torch.no_grad()
def test_steps_are_the_network_on_all_frames_so_far(name: str, frames: int) -> None:
    network = made(STREAMS[name])
    streamed = StreamedNetwork(network, torch.zeros(1, CHANNELS, 8, SIZE, SIZE), frames)
    assert (streamed.delay, streamed.flush_steps) == (0, 0)
    states, video = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 5 * frames, SIZE, SIZE)
    for step in range(1, 6):
        so_far = video[:, :, : step * frames]
        logits, *states = streamed(so_far[:, :, -frames:], *states)
        torch.testing.assert_close(logits, network(so_far), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(streamed.clip(so_far), network(so_far), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", LATE)
@torch.no_grad()
def test_a_network_that_looks_ahead_is_late_and_ends_as_the_network_on_the_whole_video(name: str, frames: int) -> None:
    network = made(LATE[name])
    streamed = StreamedNetwork(network, torch.zeros(1, CHANNELS, 8, SIZE, SIZE), frames)
    states, video = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 6 * frames, SIZE, SIZE)
    for step in range(1, 7):
        so_far = video[:, :, : step * frames]
        logits, *states = streamed(so_far[:, :, -frames:], *states)
        if (expected := streamed.clip(so_far)) is not None:
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        if step * frames < streamed.min_frames or not streamed.flush_steps:
            continue
        ending = [torch.ones(1, 1) if key == "ended" else value for key, value in zip(streamed.initial_states(), states, strict=True)]
        for _ in range(streamed.flush_steps):
            logits, *ending = streamed(torch.full_like(video[:, :, :frames], 7.0), *ending)
        torch.testing.assert_close(logits, network(so_far), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(streamed.clip(so_far, ended=True), network(so_far), atol=1e-5, rtol=1e-5)


def test_refused() -> None:
    with pytest.raises(StreamError):
        StreamedNetwork(made(Net(lambda f, r: r(f)[0][:, -1], rnn(nn.LSTM, bidirectional=True))), torch.zeros(1, CHANNELS, 8, SIZE, SIZE), 2)
