"""The fully causal network: its steps are the clip network on everything so far, and nothing looks ahead."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.runtime import ClipstepError
from clipstep.training.models import build

pytestmark = pytest.mark.usefixtures("shallow")

Make = Callable[..., nn.Module]
SETTINGS = [{"alpha": 2, "beta": 1}, {"alpha": 4, "beta": 2, "buffer_frames": 2}, {"alpha": 1, "beta": 1, "channels": 2}]


def _steps(network: nn.Module, frames: Tensor, size: int) -> list[Tensor]:
    (past,) = network.initial_states().values()
    past = past.repeat(len(frames), 1)
    every = []
    for chunk in frames.split(size, dim=2):
        logits, past = network(chunk, past)
        every.append(logits)
    return every


def _pooled(x: Tensor) -> Tensor:
    return torch.stack([F.avg_pool2d(frame, 3, 2, 1) for frame in x.unbind(2)], dim=2)


def _by_hand(network: nn.Module, frames: Tensor) -> Tensor:
    """The clip network: each temporal kernel preceded by zeros, written without states."""

    def ahead(x: Tensor, count: int) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, count, 0))

    features = []
    for path in (network.slow, network.fast):
        z = F.relu(path.stem_norm(path.stem(ahead(frames[:, :, :: path.stride], 2))))
        y = F.max_pool3d(F.relu(path.causal_norm(path.causal(ahead(z, path.buffer_frames)))), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for unit in path.stages:
            branch = F.channel_shuffle(F.relu(unit.norm1(unit.conv1(y))), unit.groups)
            branch = unit.norm3(unit.conv2(unit.norm2(unit.depthwise(ahead(branch, 2)))))
            y = F.relu(y + branch if unit.stride == 1 else torch.cat([_pooled(y), branch], dim=1))
        features.append(y.mean(dim=(2, 3, 4)))
    return network.classifier(torch.cat(features, dim=1))


@pytest.mark.parametrize("setting", SETTINGS)
@torch.no_grad()
def test_each_step_is_the_clip_network_on_everything_so_far_and_again_after_a_reset(small_network: Make, setting: dict[str, int]) -> None:
    network = small_network(causal=True, **setting)
    size = setting["alpha"]
    videos = torch.randn(2, setting.get("channels", 3), 20, 32, 32)
    for _ in range(2):
        for index, logits in enumerate(_steps(network, videos, size)):
            torch.testing.assert_close(logits, _by_hand(network, videos[:, :, : size * (index + 1)]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_steps_of_any_length_agree_where_they_meet(small_network: Make) -> None:
    network, video = small_network(causal=True), torch.randn(1, 3, 24, 32, 32)
    pairs, eights = _steps(network, video, 2), _steps(network, video, 8)
    for few, many in zip(eights, pairs[3::4], strict=True):
        torch.testing.assert_close(few, many, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_later_frame_changes_no_earlier_prediction_and_the_first_frame_the_later_ones(small_network: Make) -> None:
    network, video = small_network(causal=True), torch.randn(1, 3, 12, 32, 32)
    plain = _steps(network, video, 2)
    for changed, before in ((8, 4), (0, 0)):
        other = video.clone()
        other[:, :, changed] += 1
        difference = [float((a - b).abs().max()) for a, b in zip(plain, _steps(network, other, 2), strict=True)]
        assert difference[:before] == [0.0] * before and min(difference[before:]) > 1e-5


@torch.no_grad()
def test_nothing_is_written_to(small_network: Make) -> None:
    network, frames = small_network(causal=True), torch.randn(1, 3, 2, 32, 32)
    past = torch.rand_like(network.initial_states()["past"])
    before = past.clone()
    first = network(frames, past)
    assert torch.equal(past, before)
    torch.testing.assert_close(network(frames, past), first, atol=0, rtol=0)


def test_weights_of_the_papers_network_fit(small_network: Make) -> None:
    small_network(causal=True).load_state_dict(small_network().state_dict())


def test_frames_that_fill_no_whole_step_are_refused() -> None:
    with pytest.raises(ClipstepError, match="frames is 5; expected a multiple of alpha 2 and beta 1"):
        build("slowfast_causal_shufflenet", {"classes": 3, "frames": 5, "alpha": 2, "causal": True})
