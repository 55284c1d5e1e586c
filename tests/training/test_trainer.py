"""A step of training by hand: accumulation, averaged weights, a loss that is not finite."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from clipstep.runtime import ClipstepError
from clipstep.training.config import TrainingConfig
from clipstep.training.data.subclips import BrokenVideo, Video
from clipstep.training.run import RunInfo
from clipstep.training.trainer import Trainer

INFO = RunInfo("any", {}, ("a", "b", "c"), (100.0, 110.0, 120.0), (50.0, 60.0, 70.0), 25.0)
SGD = TrainingConfig(optimizer="sgd", learning_rate=0.01, momentum=0.0, weight_decay=0.0, precision="32")
MakeTrainer = Callable[..., Trainer]


def _videos(*lengths: int, seed: int = 0) -> list[Video]:
    random = torch.Generator().manual_seed(seed)
    every = [torch.randint(256, (length, 4, 32, 32, 3), dtype=torch.uint8, generator=random) for length in lengths]
    return [Video(Path(f"{index}.mp4"), subclips, index % 3) for index, subclips in enumerate(every)]


@pytest.fixture
def make(small_network: Callable[..., nn.Module]) -> MakeTrainer:
    """Statistics of batch norms are fixed, so that batches can be compared."""
    return lambda config=SGD: Trainer(small_network(), INFO, config, Fabric(accelerator="cpu", devices=1))


def _weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1), (4, 0), (1, 1, 2)])
def test_accumulated_batches_make_the_step_of_the_joined_one(make: MakeTrainer, sizes: Sequence[int]) -> None:
    videos = _videos(1, 3, 2, 2)
    joined, parts = make(), make()
    start = _weights(joined.network)
    loss, used = joined.step([videos])
    bounds = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
    assert parts.step([videos[a:b] for a, b in pairwise(bounds)]) == (pytest.approx(loss, rel=1e-5), used)
    moved = _weights(joined.network) - start
    assert used == 4 and moved.norm() > 1e-3
    torch.testing.assert_close(_weights(parts.network) - start, moved, atol=1e-5 * float(moved.abs().max()), rtol=1e-3)


def test_a_broken_video_does_not_count(make: MakeTrainer) -> None:
    videos, broken = _videos(1, 2), BrokenVideo(Path("b.mp4"), "b.mp4: cannot be decoded")
    alone, mixed = make(), make()
    alone.step([videos])
    with pytest.warns(UserWarning, match=r"skipped: b\.mp4: cannot be decoded"):
        assert mixed.step([[videos[0], broken, videos[1]]])[1] == 2
    assert torch.equal(_weights(alone.network), _weights(mixed.network))
    assert mixed.step([[broken]]) == (0.0, 0) and mixed.broken == {"b.mp4": "b.mp4: cannot be decoded"}
    assert torch.equal(_weights(alone.network), _weights(mixed.network))


def test_averaged_weights_are_the_exponential_mean(make: MakeTrainer) -> None:
    """The first step's weights begin the mean; then 0.75 of it and 0.25 of the new ones."""
    trainer = make(replace(SGD, ema=0.75))
    expected = None
    for seed in range(3):
        trainer.step([_videos(1, 1, seed=seed)])
        new = _weights(trainer.network)
        expected = new if expected is None else 0.75 * expected + 0.25 * new
    torch.testing.assert_close(_weights(trainer.evaluated), expected)
    assert trainer.evaluated is not trainer.network


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(make: MakeTrainer) -> None:
    trainer = make()
    nn.init.constant_(trainer.network.classifier.bias, float("inf"))
    before = _weights(trainer.network)
    with pytest.raises(ClipstepError, match=r"the loss is nan; got a batch of 0\.mp4, 1\.mp4; lower --learning-rate, or look at these videos"):
        trainer.step([_videos(1, 2)])
    assert torch.equal(_weights(trainer.network), before)


def test_bf16_computes_nearly_the_same(make: MakeTrainer) -> None:
    videos = _videos(1, 2)
    exact, mixed = make(), make(replace(SGD, precision="bf16"))
    start = _weights(exact.network)
    losses = [trainer.step([videos])[0] for trainer in (exact, mixed)]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)
    moves = [_weights(trainer.network) - start for trainer in (exact, mixed)]
    assert nn.functional.cosine_similarity(*moves, dim=0) > 0.95


def test_validation_by_hand(make: MakeTrainer) -> None:
    from clipstep.training.predict import video_logits

    trainer, videos = make(), _videos(1, 3, 2)
    logits = torch.stack([video_logits(trainer.network, video.subclips, INFO)[-1] for video in videos])
    labels = torch.tensor([video.label for video in videos])
    loss, top1 = trainer.validate([[videos[0], videos[1]], [videos[2]]])
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert top1 == pytest.approx(float((logits.argmax(dim=1) == labels).float().mean()))
    with pytest.raises(ClipstepError, match="no usable video to validate on"), pytest.warns(UserWarning):
        trainer.validate([[BrokenVideo(Path("c.mp4"), "c.mp4: broken")]])


def test_an_epoch_stops_after_a_step_if_asked_and_otherwise_takes_all_batches(make: MakeTrainer) -> None:
    trainer, done = make(), []
    batches = [_videos(1, 1), _videos(2, 2, 2, seed=1)]
    result = trainer.epoch(0, iter(batches), 2, lambda: True, done.append)
    assert (result.videos, result.complete, done) == (2, False, [1])
    result = trainer.epoch(1, iter(batches), 2, lambda: False, done.append)
    assert (result.videos, result.complete, done) == (5, True, [1, 1, 1])


def test_an_epochs_loss_is_the_mean_over_its_videos(make: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()
    monkeypatch.setattr(trainer, "step", lambda batches: {2: (0.5, 2), 3: (1.0, 3)}[len(batches[0])])
    assert trainer.epoch(0, iter([_videos(1, 1), _videos(1, 1, 1)]), 2, lambda: False, lambda _: None).loss == pytest.approx(0.8)
