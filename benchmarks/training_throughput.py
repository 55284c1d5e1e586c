"""``clipstep bench-training``: the throughput of training in batches, in videos a second, beside a plain loop over one video at a time."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.runtime.cores import available_cores
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError
from clipstep.runtime.wording import counted
from clipstep.training.config import TrainingConfig
from clipstep.training.data.batches import EpochBatches
from clipstep.training.data.lists import Clip, read_data_set
from clipstep.training.data.subclips import TrainingVideos, Video, channel_statistics
from clipstep.training.models import build
from clipstep.training.run import RunInfo
from clipstep.training.train import launch, loader
from clipstep.training.trainer import Item, Trainer


def bench_training_command(
    data: Path, layout: str, architecture: str, batch_size: int, devices: int, workers: int, videos: int, rounds: int, frames: int, size: int
) -> None:
    """``clipstep bench-training``, whose options are in cli.py."""
    data_set = read_data_set(data, layout=layout, allow_leakage=True)
    clips = data_set.train[:videos]
    trainer = _trainer(architecture, clips, data_set.labels, frames, size, devices)
    fabric, source = trainer.fabric, TrainingVideos(clips, frames, size)
    plain, together = [], []
    _step(trainer, source[0, 0])
    for epoch in range(rounds):
        if fabric.global_rank == 0:
            plain.append(_seconds_of_plain_loop(trainer, source, epoch))
        fabric.barrier()
        together.append(_seconds_of_batches(trainer, source, epoch, batch_size, workers))
    if fabric.global_rank > 0:
        return
    table = new_table("training", "videos\na second", "times the\nplain loop")
    processes = f"{devices} processes, batches" if devices > 1 else "batches"
    for name, seconds in (("one video at a time", plain), (f"{processes} of {batch_size}, {counted(workers, 'worker')}", together)):
        ratio = statistics.median(one / other for one, other in zip(plain, seconds, strict=True))
        table.add_row(name, f"{len(clips) / statistics.median(seconds):.2f}", f"{ratio:.2f}")
    console = new_console()
    console.print(f"{architecture}, {counted(len(clips), 'video')}, {counted(rounds, 'round')} taking turns on {counted(available_cores(), 'core')}")
    print_table(console, table)


def _trainer(architecture: str, clips: tuple[Clip, ...], labels: tuple[str, ...], frames: int, size: int, devices: int) -> Trainer:
    config = {"classes": len(labels), "frames": frames, "size": size}
    how = TrainingConfig(accelerator="cpu", devices=devices)
    mean, std = channel_statistics(clips, frames, size, videos=4)
    info = RunInfo(architecture, config, labels, tuple(mean), tuple(std), 25.0)
    trainer = Trainer(build(architecture, config), info, how, launch(how))
    trainer.network.train()
    return trainer


def _step(trainer: Trainer, item: Item) -> None:
    if not isinstance(item, Video):
        raise item if isinstance(item, ClipstepError) else VideoError(item.reason)
    trainer.optimizer.zero_grad()
    for loss in trainer.losses([item]):
        torch.autograd.backward(loss)
    trainer.optimizer.step()


def _seconds_of_plain_loop(trainer: Trainer, source: TrainingVideos, epoch: int) -> float:
    started = time.perf_counter()
    with _threads(available_cores()):
        for index in range(len(source)):
            _step(trainer, source[epoch, index])
    return time.perf_counter() - started


def _seconds_of_batches(trainer: Trainer, source: TrainingVideos, epoch: int, batch_size: int, workers: int) -> float:
    fabric = trainer.fabric
    order = EpochBatches(len(source), batch_size, 0, range(epoch, epoch + 1), fabric.global_rank, fabric.world_size)
    started = time.perf_counter()
    with _threads(max(1, available_cores() // fabric.world_size)):
        for batch in loader(source, workers, batch_sampler=order):
            trainer.step([batch])
    return time.perf_counter() - started


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
