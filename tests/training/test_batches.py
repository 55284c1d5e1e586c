"""An epoch's batches hold every video once, in an order that only seed and epoch decide, split evenly between processes."""

import pytest

from clipstep.training.data.batches import EpochBatches


@pytest.mark.parametrize(("videos", "batch_size"), [(10, 4), (8, 4), (3, 4), (1, 1), (7, 1)])
def test_every_video_once_an_epoch(videos: int, batch_size: int) -> None:
    batches = EpochBatches(videos, batch_size, 0, range(2))
    listed = list(batches)
    assert len(listed) == len(batches) == 2 * batches.per_epoch
    for epoch in range(2):
        mine = listed[epoch * batches.per_epoch :][: batches.per_epoch]
        assert sorted(index for batch in mine for _, index in batch) == list(range(videos))
        assert {e for batch in mine for e, _ in batch} == {epoch}
        assert all(len(batch) == batch_size for batch in mine[:-1])


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [index for batch in EpochBatches(20, 5, seed, range(epoch, epoch + 1)) for _, index in batch]

    assert order(0, 0) != order(0, 1) != order(1, 0) != order(0, 0)
    assert order(0, 0) == order(0, 0)


def test_a_training_that_begins_later_sees_the_same() -> None:
    whole = list(EpochBatches(9, 2, 3, range(5)))
    assert list(EpochBatches(9, 2, 3, range(2, 5))) == whole[10:]


@pytest.mark.parametrize("videos", [1, 5, 12, 13])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(videos: int, processes: int) -> None:
    joint = list(EpochBatches(videos, 2 * processes, 4, range(2)))
    shares = [list(EpochBatches(videos, 2, 4, range(2), rank, processes)) for rank in range(processes)]
    for batch, *parts in zip(joint, *shares, strict=True):
        assert sorted(item for part in parts for item in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
