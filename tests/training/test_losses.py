"""The loss and the evaluation, by hand: states carried and detached, every video of the same weight, the last logits count."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from clipstep.runtime import VideoError
from clipstep.training.data.lists import Clip
from clipstep.training.data.subclips import Video
from clipstep.training.run import RunInfo
from clipstep.training.train import evaluate_top1, subclip_losses, video_logits

MEAN, DEVIATION = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
INFO = RunInfo("any", {}, ("a", "b", "c"), MEAN, DEVIATION, 25.0)
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
    return np.moveaxis((subclip.numpy().astype(np.float64) - MEAN) / DEVIATION, -1, 0)


def _cross_entropy(logits: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])


@pytest.mark.parametrize("lengths", [(1,), (2, 2), (1, 3, 2), (4, 1, 1, 2)])
def test_loss_is_the_mean_over_videos_of_means_over_subclips(small_network: Make, lengths: Sequence[int]) -> None:
    network, videos = small_network(), _videos(*lengths)
    parts = [float(part.detach()) for part in subclip_losses(network, videos, MEAN, DEVIATION)]
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
    for part in subclip_losses(network, [video], MEAN, DEVIATION):
        part.backward()
    w, total, expected = np.array([1.0, -0.5, 0.25]), 0.0, np.zeros(3)
    for subclip in video.subclips:
        m = _normalised(subclip).mean()
        total += m * w.sum()
        p = np.exp(total * w) / np.exp(total * w).sum()
        error = p - np.eye(3)[video.label]
        expected += (total * error + m * (error @ w)) / 3
    np.testing.assert_allclose(network.w.grad.numpy(), expected, atol=1e-5)


def test_in_training_a_batch_norm_sees_only_videos_that_go_on() -> None:
    """Three videos of 1, 3 and 2 subclips: batches of 3, 2 and 1."""

    class Spy(Brightness):
        seen: list[int]

        def forward(self, frames: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            self.seen.append(len(frames))
            return super().forward(frames, total)

    network = Spy()
    network.seen = []
    list(subclip_losses(network, _videos(1, 3, 2), MEAN, DEVIATION))
    assert network.seen == [3, 2, 1]


def test_a_clip_network_without_states_is_trained_as_it_is() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, frames: Tensor) -> tuple[Tensor]:
            return (self.linear(frames.mean(dim=(2, 3, 4))),)

    network, videos = Plain(), _videos(1, 2)
    total = sum(float(part.detach()) for part in subclip_losses(network, videos, MEAN, DEVIATION))
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


class MainColour(nn.Module):
    """Names the class by the colour of the subclip that it sees."""

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        return (frames.mean(dim=(2, 3, 4)),)


def _colours(*names: str) -> np.ndarray:
    return np.concatenate([np.full((4, 48, 64, 3), [250 * (name == channel) for channel in "rgb"], np.uint8) for name in names])


def _top1(*clips: Clip) -> tuple[float, dict[str, str]]:
    return evaluate_top1(MainColour(), clips, INFO, 4, 16, Console(quiet=True))


def test_top1_takes_the_logits_after_the_last_subclip(write_video: Callable[..., Path]) -> None:
    """Three subclips each, the last one green, blue, red; the tail of two frames is not seen."""
    videos = [_colours(*names) for names in ("rrg", "ggb", "bbr")]
    paths = [write_video(np.concatenate([video, video[:2]]), f"{index}.mp4") for index, video in enumerate(videos)]
    assert _top1(*(Clip(path, label) for path, label in zip(paths, (1, 2, 0), strict=True))) == (1.0, {})
    assert _top1(*(Clip(path, label) for path, label in zip(paths, (1, 2, 2), strict=True))) == (2 / 3, {})
    assert _top1(*(Clip(path, label) for path, label in zip(paths, (0, 1, 2), strict=True))) == (0.0, {})


def test_top1_counts_usable_videos_and_names_the_others(write_video: Callable[..., Path], tmp_path: Path) -> None:
    good, broken = write_video(_colours("b")), tmp_path / "broken.mp4"
    broken.write_text("no video")
    top1, unusable = _top1(Clip(broken, 2), Clip(good, 2))
    assert top1 == 1.0 and list(unusable) == [str(broken)] and "cannot be decoded" in unusable[str(broken)]
    with pytest.raises(VideoError, match=r"no usable video in the test list: .*broken\.mp4"):
        _top1(Clip(broken, 0))
