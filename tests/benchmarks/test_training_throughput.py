"""``clipstep bench-training``: both ways of training see the same videos, and the table shows the ratio of their times."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch import Tensor

from clipstep.benchmarks.cli import bench_training_command
from clipstep.training.data.subclips import Video
from clipstep.training.trainer import Trainer

FIGHT = Path(__file__).parents[2] / "training/demo/fight"


@pytest.mark.long
def test_both_train_on_the_same_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    losses = Trainer.losses

    def spy(self: Trainer, videos: Sequence[Video]) -> Iterator[Tensor]:
        seen.append([video.path.name for video in videos])
        return losses(self, videos)

    monkeypatch.setattr(Trainer, "losses", spy)
    options = ["--videos", "3", "--batch-size", "2", "--workers", "1", "--rounds", "1", "--size", "64"]
    result = CliRunner().invoke(bench_training_command, [str(FIGHT), *options], standalone_mode=False)
    assert result.exception is None, result.output
    assert [len(batch) for batch in seen] == [1, 1, 1, 1, 2, 1]
    names = [path.name for path in (FIGHT / "videos/Fight").iterdir()]
    plain, batched = (sorted(chain.from_iterable(batches)) for batches in (seen[1:4], seen[4:]))
    assert plain == batched and len(set(plain)) == 3 and set(plain) <= set(names)
    rows = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for cells in (re.split(r" {2,}", line) for line in result.output.splitlines())
        if len(cells) == 3 and cells[0] not in ("", "training")
    }
    alone, together = rows["one video at a time"], rows["batches of 2, 1 worker"]
    assert alone[1] == 1.0 and together[1] == pytest.approx(together[0] / alone[0], rel=0.1)
