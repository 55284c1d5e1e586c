"""The zoo's own networks against their papers and against independent computations, in small."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clipstep.benchmarks.zoo.entries import ENTRIES
from clipstep.benchmarks.zoo.movinet import A0, A1, A2, Architecture, Layer, MoViNetBase, MoViNetStream
from clipstep.benchmarks.zoo.recurrent import ConvLstm, Encoder, OverFrames
from clipstep.benchmarks.zoo.tsm import OfflineTsm, OnlineTsm, Residual
from clipstep.network.count import clip_macs, count_parameters

TINY = Architecture(32, 8, 16, (Layer(8, 16, 1, 5, 2), Layer(16, 24, 3, 3, 2), Layer(16, 24, 5, 3), Layer(16, 24, 3, 3)))


def test_entries_are_named_as_bundles_and_factories_are() -> None:
    assert all(name == entry.name and name.isidentifier() for name, entry in ENTRIES.items())


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if not entry.needs])
def test_networks_that_need_no_package_return_their_classes(name: str) -> None:
    from importlib import import_module

    entry = ENTRIES[name]
    file, factory = entry.factory.split(":")
    with torch.device("meta"):
        network = getattr(import_module(file), factory)().eval()
        states = network.initial_states().values() if hasattr(network, "initial_states") else ()
        output = network(torch.zeros(1, 3, entry.frames, entry.size, entry.size), *states)
    logits, *following = output if isinstance(output, tuple) else (output,)
    assert logits.shape == (1, entry.classes)
    assert [value.shape for value in following] == [state.shape for state in states]


@pytest.mark.parametrize(
    ("architecture", "parameters", "macs", "tolerance"),
    [(A0, 3.1e6, 2.71e9, 0.05), (A1, 4.6e6, 6.02e9, 0.05), (A2, 4.8e6, 10.3e9, 0.13)],
    ids=["A0", "A1", "A2"],
)
def test_movinets_are_as_large_as_in_their_paper(architecture: Architecture, parameters: float, macs: float, tolerance: float) -> None:
    """Tables 2 and 3 of the paper, clips of 50 frames. A2 is that of the authors' code, which is larger than the paper's number."""
    with torch.device("meta"):
        network = MoViNetBase(architecture).eval()
        assert count_parameters(network) == pytest.approx(parameters, rel=tolerance)
        assert clip_macs(network, 3, 50, architecture.size) == pytest.approx(macs, rel=tolerance)


@torch.no_grad()
def test_a_movinet_takes_frames_at_once_or_one_by_one(randomise: Callable[[nn.Module], nn.Module]) -> None:
    network = randomise(MoViNetStream(TINY))
    frames, past = torch.randn(1, 3, 6, 32, 32), network.initial_states()["past"]
    at_once, packed = network(frames, past)
    for t in range(6):
        one, past = network(frames[:, :, t : t + 1], past)
    torch.testing.assert_close(one, at_once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(past, packed, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_base_movinet_sees_both_sides_of_a_frame_alike(randomise: Callable[[nn.Module], nn.Module]) -> None:
    """A clip from its end to its start, with all kernels turned in time, gives the same logits: no convolution is causal or shifted."""
    network, frames = randomise(MoViNetBase(TINY)), torch.randn(1, 3, 6, 32, 32)
    logits = network(frames)
    assert not torch.allclose(network(frames.flip(2)), logits, atol=1e-5)
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.copy_(module.weight.flip(2))
    torch.testing.assert_close(network(frames.flip(2)), logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_base_movinet_of_one_frame_is_the_streaming_one_with_its_own_activations(randomise: Callable[[nn.Module], nn.Module]) -> None:
    """With kernels of one frame, a clip of one frame, and the weights of both halves of each squeeze added, the two are the same network."""
    flat = Architecture(32, 8, 16, (Layer(8, 16, 1, 5, 2), Layer(16, 24, 1, 3)))
    stream, base, frame = randomise(MoViNetStream(flat)), MoViNetBase(flat).eval(), torch.randn(1, 3, 1, 32, 32)
    weights = {key.replace("in_plane", "in_clip"): value for key, value in stream.state_dict().items()}
    for key, value in weights.items():
        if key.endswith("squeeze.0.weight"):
            weights[key] = value.unflatten(1, (2, -1)).sum(1)
    base.load_state_dict(weights)
    for module in (base, stream):
        _replace(module, nn.SiLU, nn.Hardswish)
        _replace(module, nn.Sigmoid, nn.Hardsigmoid)
    torch.testing.assert_close(base(frame), stream(frame, stream.initial_states()["past"])[0], rtol=1e-4, atol=1e-5)


def _replace(network: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    for module in network.modules():
        for name, part in module.named_children():
            if isinstance(part, old):
                setattr(module, name, new())


def _blocks() -> tuple[list[nn.Module], nn.Module]:
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 16, 3, 2, 1)
    first = Residual(nn.Conv2d(16, 16, 3, padding=1), activation=nn.ReLU())
    second = Residual(nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1))
    return [stem, first, nn.ReLU(), second], nn.Linear(8, 5)


@torch.no_grad()
def test_online_tsm_frame_by_frame_is_the_network_with_channels_of_the_frame_before() -> None:
    blocks, head = _blocks()
    network, clip = OnlineTsm(blocks, head, size=16).eval(), torch.randn(1, 3, 5, 16, 16)
    states, logits = network.initial_states(), []
    assert {name: tuple(state.shape) for name, state in states.items()} == {"shift_1": (1, 2, 8, 8), "shift_2": (1, 2, 8, 8)}
    values = list(states.values())
    for t in range(5):
        one, *values = network(clip[:, :, t : t + 1], *values)
        logits.append(one)
    at_once, *after = network(clip, *states.values())
    torch.testing.assert_close(at_once, logits[-1])
    for value, expected in zip(values, after, strict=True):
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.cat(logits), _shifted(blocks, head, clip, forward_channels=False))


@torch.no_grad()
def test_offline_tsm_takes_channels_of_the_frames_after_and_before() -> None:
    blocks, head = _blocks()
    clip = torch.randn(1, 3, 5, 16, 16)
    expected = _shifted(blocks, head, clip, forward_channels=True).mean(0, keepdim=True)
    torch.testing.assert_close(OfflineTsm(blocks, head)(clip), expected)


def _shifted(blocks: list[nn.Module], head: nn.Module, clip: Tensor, *, forward_channels: bool) -> Tensor:
    """The logits of each frame, computed frame by frame and channel by channel."""
    frames = [blocks[0](clip[:, :, t]) for t in range(clip.shape[2])]
    for block in blocks[1:]:
        if not isinstance(block, Residual):
            frames = [block(frame) for frame in frames]
            continue
        mixed = []
        for t, frame in enumerate(frames):
            new, fold = frame.clone(), frame.shape[1] // 8
            for channel in range(2 * fold if forward_channels else fold):
                source = t + 1 if forward_channels and channel < fold else t - 1
                new[:, channel] = frames[source][:, channel] if 0 <= source < len(frames) else 0
            mixed.append(block.activation(block.shortcut(frame) + block.branch(new)))
        frames = mixed
    return torch.cat([head(frame.mean((2, 3))) for frame in frames])


@torch.no_grad()
def test_recurrent_networks_take_the_features_of_each_frame() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    clip = torch.randn(1, 3, 16, 12, 12)
    sequence = torch.stack([features(clip[:, :, t]) for t in range(16)], 1)
    gru = OverFrames(features, nn.GRU(6, 256, batch_first=True))
    torch.testing.assert_close(gru(clip), gru.head(gru.recurrent(sequence)[1][0]))
    encoder = OverFrames(features, Encoder(6)).eval()
    parts = encoder.recurrent
    x = parts.project(sequence) + parts.positions
    for layer in parts.layers:
        x = layer(x)
    torch.testing.assert_close(encoder(clip), encoder.head(x[:, -1]))


@torch.no_grad()
def test_a_conv_lstm_of_one_pixel_is_an_lstm() -> None:
    network, clip = ConvLstm(channels=4).eval(), torch.randn(1, 3, 5, 8, 8)
    lstm = nn.LSTM(4, 4, 2)
    for layer, gates in enumerate(network.gates):
        middle = gates.weight[:, :, 1, 1].unflatten(0, (4, 4))
        forget, into, out, new = middle
        bias = gates.bias.unflatten(0, (4, 4))
        order = torch.cat([into, forget, new, out])  # PyTorch's order of gates.
        getattr(lstm, f"weight_ih_l{layer}").copy_(order[:, :4])
        getattr(lstm, f"weight_hh_l{layer}").copy_(order[:, 4:])
        getattr(lstm, f"bias_ih_l{layer}").copy_(torch.cat([bias[1], bias[0], bias[3], bias[2]]))
        getattr(lstm, f"bias_hh_l{layer}").zero_()
    features = torch.stack([network.stem(clip[:, :, t]).flatten(1) for t in range(5)])
    torch.testing.assert_close(network(clip), network.head(lstm(features)[0][-1]))
