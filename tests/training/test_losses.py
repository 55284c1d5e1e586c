"""Loss and evaluation computed by hand: states are carried and detached, all videos have the same weight, the last logits count."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.network.preprocess import normalise
from clipstep.training import losses
from clipstep.training.data.balance import balanced_weights
from clipstep.training.data.lists import Clip
from clipstep.training.data.subclips import Video
from clipstep.training.losses import subclip_losses
from clipstep.training.predict import video_logits
from clipstep.training.run import RunInfo

pytestmark = pytest.mark.usefixtures("shallow")

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
INFO = RunInfo("any", {}, ("a", "b", "c"), MEAN, STD, 25.0)
Make = Callable[..., nn.Module]


class Brightness(nn.Module):
    """Logits that can be computed on paper: ``w * (mean of the frames, plus the state)``; the next state is that sum."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -0.5, 0.25]))

    def initial_states(self) -> dict[str, Tensor]:
        return {"total": torch.zeros(1, 1)}

    def forward(self, frames: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        total = total + frames.mean(dim=(1, 2, 3, 4))[:, None] * self.w.sum()
        return total * self.w, total


def _videos(*lengths: int) -> list[Video]:
    random = np.random.default_rng(0)
    every = [torch.from_numpy(random.integers(0, 256, (length, 4, 32, 32, 3), np.uint8)) for length in lengths]
    return [Video(Path(f"{index}.mp4"), subclips, index % 3) for index, subclips in enumerate(every)]


def _normalised(subclip: Tensor) -> np.ndarray:
    return np.moveaxis((subclip.numpy().astype(np.float64) - MEAN) / STD, -1, 0)


def _cross_entropy(logits: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])


@pytest.mark.parametrize("lengths", [(1,), (2, 2), (1, 3, 2), (4, 1, 1, 2)])
def test_loss_is_the_mean_over_videos_of_means_over_subclips(small_network: Make, lengths: Sequence[int]) -> None:
    network, videos = small_network(), _videos(*lengths)
    parts = [float(part.detach()) for part in subclip_losses(network, videos, MEAN, STD)]
    means = []
    for video in videos:
        states, losses = list(network.initial_states().values()), []
        for subclip in video.subclips:
            with torch.no_grad():
                logits, *states = network(torch.from_numpy(_normalised(subclip)).float()[None], *states)
            losses.append(_cross_entropy(logits[0].double().numpy(), video.label))
        means.append(np.mean(losses))
    assert len(parts) == max(lengths)
    assert sum(parts) == pytest.approx(np.mean(means), rel=1e-5)


def test_no_gradient_flows_through_the_carried_state() -> None:
    """Of each subclip's loss, the state before it is a constant: d loss / d w by hand with p = softmax(total * w)."""
    network, (video,) = Brightness(), _videos(3)
    for part in subclip_losses(network, [video], MEAN, STD):
        part.backward()
    w, total, expected = np.array([1.0, -0.5, 0.25]), 0.0, np.zeros(3)
    for subclip in video.subclips:
        m = _normalised(subclip).mean()
        total += m * w.sum()
        p = np.exp(total * w) / np.exp(total * w).sum()
        error = p - np.eye(3)[video.label]
        expected += (total * error + m * (error @ w)) / 3
    np.testing.assert_allclose(network.w.grad.numpy(), expected, atol=1e-5)


def test_batch_norms_see_only_videos_that_have_begun() -> None:
    """Three videos of 1, 3 and 2 subclips end together: batches of 1, 2 and 3."""

    class Spy(Brightness):
        seen: list[int]

        def forward(self, frames: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            self.seen.append(len(frames))
            return super().forward(frames, total)

    network = Spy()
    network.seen = []
    list(subclip_losses(network, _videos(1, 3, 2), MEAN, STD))
    assert network.seen == [1, 2, 3]


def test_a_clip_network_without_states_is_trained_as_it_is() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, frames: Tensor) -> tuple[Tensor]:
            return (self.linear(frames.mean(dim=(2, 3, 4))),)

    network, videos = Plain(), _videos(1, 2)
    total = sum(float(part.detach()) for part in subclip_losses(network, videos, MEAN, STD))
    w, b = (value.detach().double().numpy() for value in (network.linear.weight, network.linear.bias))
    losses = [[_cross_entropy(w @ _normalised(s).mean(axis=(1, 2, 3)) + b, v.label) for s in v.subclips] for v in videos]
    assert total == pytest.approx(np.mean([np.mean(video) for video in losses]), rel=1e-5)


def test_logits_of_a_video_are_those_of_steps_by_hand(small_network: Make) -> None:
    network, (video,) = small_network(), _videos(3)
    slow, fast = network.initial_states().values()
    expected = []
    for subclip in video.subclips:
        with torch.no_grad():
            logits, slow, fast = network(torch.from_numpy(_normalised(subclip)).float()[None], slow, fast)
        expected.append(logits[0])
    torch.testing.assert_close(video_logits(network, video.subclips, INFO), torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", ["every", "last"])
@pytest.mark.parametrize("truncate", [1, 2, 10])
@pytest.mark.parametrize("lengths", [(1,), (1, 3, 2), (4, 1, 1, 2), (5, 5)])
def test_gradients_of_a_batch_are_those_of_one_video_at_a_time(
    small_network: Make, loss: str, truncate: int, lengths: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a plain loop over one video, window after window from its end; batch norms with fixed statistics.

    In double precision: in single, rounding moves some value over a ReLU's edge.
    """
    monkeypatch.setattr(losses, "normalise", lambda *arguments: normalise(*arguments).double())
    network, videos = small_network().double(), _videos(*lengths)
    expected = [torch.zeros_like(p) for p in network.parameters()]
    for video in videos:
        states, length = list(network.initial_states().values()), len(video.subclips)
        total = torch.zeros(())
        for position, subclip in enumerate(video.subclips):
            if (length - position) % truncate == 0 and position:
                states = [state.detach() for state in states]
            logits, *states = network(torch.from_numpy(_normalised(subclip)).float().double()[None], *(state.double() for state in states))
            if loss == "every" or position == length - 1:
                total = total + nn.functional.cross_entropy(logits, torch.tensor([video.label])) / (length if loss == "every" else 1)
        gradients = torch.autograd.grad(total / len(videos), list(network.parameters()))
        expected = [sum_ + gradient for sum_, gradient in zip(expected, gradients, strict=True)]
    for part in subclip_losses(network, videos, MEAN, STD, loss=loss, truncate=truncate):
        part.backward()
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6 * largest, rtol=0)


def test_back_propagation_through_more_subclips_changes_the_gradients(small_network: Make) -> None:
    """Otherwise the test above could not tell windows apart."""
    gradients = []
    for truncate in (1, 2):
        network = small_network()
        for part in subclip_losses(network, _videos(4), MEAN, STD, loss="last", truncate=truncate):
            part.backward()
        gradients.append(network.slow.stem.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4 * gradients[0].abs().max()


@pytest.mark.parametrize("loss", ["every", "last"])
def test_memory_does_not_grow_with_the_length_of_a_video(small_network: Make, loss: str) -> None:
    """Bytes that autograd keeps for the backward passes, at their most, counted by its own hooks."""

    def most_bytes(length: int) -> int:
        network, now, most = small_network(), 0, 0

        class Kept:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal now, most
                self.tensor, self.size = tensor, tensor.nbytes
                now += self.size
                most = max(most, now)

            def __del__(self) -> None:
                nonlocal now
                now -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            for part in subclip_losses(network, _videos(length), MEAN, STD, loss=loss, truncate=2):
                part.backward()
                del part
        return most

    assert most_bytes(2) > 1_000_000
    assert most_bytes(20) == most_bytes(2)


@pytest.mark.parametrize("loss", ["every", "last"])
def test_class_weights_multiply_the_losses_of_videos(small_network: Make, loss: str) -> None:
    """The mean is over the number of videos, not over their weights, so that a batch of one class has its weight, too."""
    weights = (0.5, 2.0, 3.0)
    videos = _videos(2, 1, 3, 2)
    with torch.no_grad():
        alone = [sum(float(part) for part in subclip_losses(small_network(), [video], MEAN, STD, loss=loss)) for video in videos]
        together = sum(float(part) for part in subclip_losses(small_network(), videos, MEAN, STD, loss=loss, weights=weights))
    assert together == pytest.approx(np.mean([weights[video.label] * own for video, own in zip(videos, alone, strict=True)]), rel=1e-5)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    """n / (k * count) by hand: 12 videos, 3 classes that have some; a class without videos has no weight."""
    clips = [Clip(Path(f"{number}.mp4"), label) for number, label in enumerate([0] * 8 + [1] * 3 + [3])]
    assert balanced_weights(clips, 4) == [12 / 24, 12 / 9, 0.0, 12 / 3]
    assert sum(balanced_weights(clips, 4)[clip.label] for clip in clips) == pytest.approx(len(clips))
