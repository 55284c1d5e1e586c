"""The order in which videos are put into batches. It depends on nothing but the seed and the epoch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)``, one epoch after the other without a break, so that workers go on decoding between epochs.

    ``batch_size`` is that of one process. The ``processes`` split each joint batch: process ``rank`` takes every ``processes``-th video of it, so
    that the joint batches hold the same videos however they are split.
    """

    def __init__(self, videos: int, batch_size: int, seed: int, epochs: range, rank: int = 0, processes: int = 1) -> None:
        self.videos = videos
        self.joint = batch_size * processes
        self.seed = seed
        self.epochs = epochs
        self.rank = rank
        self.processes = processes
        self.per_epoch = -(-videos // self.joint)

    def __len__(self) -> int:
        return self.per_epoch * len(self.epochs)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in self.epochs:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.videos)
            for start in range(0, self.videos, self.joint):
                joint = order[start : start + self.joint]
                yield [(epoch, int(index)) for index in joint[self.rank :: self.processes]]
