"""The size of the home network, its shapes, and its explicit states."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from torch import nn

from clipstep.runtime import ClipstepError
from clipstep.training.models import PRESETS, build

Make = Callable[..., nn.Module]
NAME = "slowfast_causal_shufflenet"
PAPER = ("a2b1", "a4b2")


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_the_paper(preset: str) -> None:
    network = build(NAME, {"classes": 101, **PRESETS[preset]})
    assert sum(parameter.numel() for parameter in network.parameters()) == 612_509


def test_multiply_accumulates_of_the_paper(count_multiply_accumulates: Callable[..., int]) -> None:
    network = build(NAME, {"classes": 101, **PRESETS["a2b1"]}).eval()
    total = count_multiply_accumulates(network, torch.zeros(1, 3, 16, 112, 112), *network.initial_states().values())
    assert abs(total / 1e6 - 168.15) <= 0.005


def test_presets_are_the_papers() -> None:
    configs = [asdict(build(NAME, {"classes": 5, **PRESETS[preset]}).config) for preset in PAPER]
    shared = {"classes": 5, "frames": 16, "size": 112, "channels": 3, "buffer_frames": 1, "causal": False}
    assert configs == [{**shared, "alpha": 2, "beta": 1}, {**shared, "alpha": 4, "beta": 2}]


@pytest.mark.parametrize("preset", PAPER)
@pytest.mark.parametrize(("batch", "b"), [(1, 1), (2, 3)])
def test_shapes_at_full_size(preset: str, batch: int, b: int) -> None:
    network = build(NAME, {"classes": 101, "buffer_frames": b, **PRESETS[preset]}).eval()
    first = network.initial_states()
    assert {name: tuple(state.shape) for name, state in first.items()} == {"slow_buffer": (1, 12 * b, 56, 56), "fast_buffer": (1, 12 * b, 56, 56)}
    assert all(state.dtype == torch.float32 and not state.any() for state in first.values())
    with torch.no_grad():
        logits, *buffers = network(torch.randn(batch, 3, 16, 112, 112), *(state.repeat(batch, 1, 1, 1) for state in first.values()))
    assert logits.shape == (batch, 101)
    assert [tuple(buffer.shape) for buffer in buffers] == [(batch, 12 * b, 56, 56)] * 2


@pytest.mark.parametrize("frames", [1, 2, 7, 9, 16])
@pytest.mark.parametrize("size", [32, 33])
def test_any_number_of_frames(small_network: Make, frames: int, size: int) -> None:
    network = small_network(frames=frames, size=size)
    with torch.no_grad():
        logits, *buffers = network(torch.randn(2, 3, frames, size, size), *(state.repeat(2, 1, 1, 1) for state in network.initial_states().values()))
    assert logits.shape == (2, 3) and logits.isfinite().all()
    assert [tuple(buffer.shape) for buffer in buffers] == [(2, 12, (size + 1) // 2, (size + 1) // 2)] * 2


@pytest.mark.parametrize(("b", "preset"), [(1, "a2b1"), (3, "a2b1"), (2, "a4b2")])
@torch.no_grad()
def test_two_videos_in_a_batch_are_each_video_by_hand_and_again_after_a_reset(small_network: Make, b: int, preset: str) -> None:
    network = small_network(frames=8, buffer_frames=b, **PRESETS[preset])
    videos = torch.randn(2, 4, 3, 8, 32, 32)
    states = [state.repeat(2, 1, 1, 1) for state in network.initial_states().values()]
    batched = []
    for subclips in videos.unbind(1):
        logits, *states = network(subclips, *states)
        batched.append((logits, *states))
    for _ in range(2):
        for index, video in enumerate(videos):
            slow, fast = network.initial_states().values()
            for subclip, expected in zip(video, batched, strict=True):
                logits, slow, fast = network(subclip[None], slow, fast)
                for got, wanted in zip((logits, slow, fast), expected, strict=True):
                    torch.testing.assert_close(got, wanted[index : index + 1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_buffer_changes_the_logits_and_its_own_path_alone(small_network: Make) -> None:
    network, frames = small_network(), torch.randn(1, 3, 4, 32, 32)
    slow, fast = network.initial_states().values()
    noise = torch.randn_like(slow)
    plain, with_slow, with_fast = network(frames, slow, fast), network(frames, noise, fast), network(frames, slow, noise)
    for changed in (with_slow, with_fast):
        assert (changed[0] - plain[0]).abs().max() > 1e-4
    # T is longer than the buffer, so the next buffer looks at the newest stem frames, not at the old buffer.
    for changed in (with_slow, with_fast):
        torch.testing.assert_close(changed[1:], plain[1:], atol=0, rtol=0)


@torch.no_grad()
def test_with_one_frame_a_path_the_next_buffer_still_remembers_the_old_one(small_network: Make) -> None:
    """Causal kernel (2, 1, 1) over [B, z] with one z: the only output frame looks at both."""
    network, frames = small_network(frames=1), torch.randn(1, 3, 1, 32, 32)
    slow, fast = network.initial_states().values()
    _, slow_plain, fast_plain = network(frames, slow, fast)
    _, slow_next, fast_next = network(frames, slow + 1, fast)
    assert (slow_next - slow_plain).abs().max() > 1e-3
    assert torch.equal(fast_next, fast_plain)


@torch.no_grad()
def test_no_input_is_written_to_and_nothing_is_kept(small_network: Make) -> None:
    network = small_network()
    inputs = [torch.randn(1, 3, 4, 32, 32), *(torch.randn(1, 12, 16, 16) for _ in range(2))]
    before, weights = [value.clone() for value in inputs], {name: value.clone() for name, value in network.state_dict().items()}
    first = network(*inputs)
    for value, wanted in zip((*inputs, *network.state_dict().values()), (*before, *weights.values()), strict=True):
        assert torch.equal(value, wanted)
    network(torch.randn(1, 3, 4, 32, 32), *first[1:])
    torch.testing.assert_close(network(*inputs), first, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"classes": 0}, "classes is 0; expected a whole number of at least 1"),
        ({"classes": 3, "frames": -4}, "frames is -4; expected a whole number"),
        ({"classes": 3, "alpha": 2.0}, r"alpha is 2\.0; expected a whole number"),
        ({"classes": "3"}, "classes is '3'; expected a whole number"),
        ({"classes": 3, "frames": 4, "buffer_frames": 3}, "buffer_frames is 3, but a path sees only 2 of 4 frames; expected at most"),
        ({"classes": 3, "gamma": 1}, "gamma"),
        ({}, "classes"),
    ],
)
def test_values_that_make_no_network_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ClipstepError, match=f"{NAME}: .*{message}"):
        build(NAME, config)


def test_an_unknown_architecture_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ClipstepError, match=f"unknown architecture; got resnet; expected one of .*{NAME}"):
        build("resnet", {"classes": 3})
