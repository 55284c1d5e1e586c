"""``clipstep throughput``: videos a second of training in batches of subclips, beside a plain loop over one video at a time."""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import click
from lightning.fabric import Fabric
from rich.table import Table

from clipstep.runtime.terminal import new_console
from clipstep.training.config import TrainingConfig
from clipstep.training.data.batches import EpochBatches
from clipstep.training.data.lists import Clip, read_data_set
from clipstep.training.data.subclips import TrainingVideos, channel_statistics
from clipstep.training.models import ARCHITECTURES, HOME, build
from clipstep.training.run import RunInfo
from clipstep.training.train import loader
from clipstep.training.trainer import Item, Trainer


@click.command("throughput")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), default=HOME, show_default=True)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Videos a batch.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Decoding processes beside the batches.")
@click.option("--videos", default=48, show_default=True, type=click.IntRange(1), help="Videos a round, from the start of the training list.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often the two take turns.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
def throughput_command(data: Path, architecture: str, batch_size: int, workers: int, videos: int, rounds: int, frames: int, size: int) -> None:
    """Measure training on the videos of DATA: decoding, forward and backward passes and the optimizer's steps, all counted."""
    data_set = read_data_set(data)
    clips = data_set.train[:videos]
    seconds: dict[str, list[float]] = {"one video at a time": [], f"batches of {batch_size}, {workers} workers": []}
    trainer = _trainer(architecture, clips, data_set.classes, frames, size)
    source = TrainingVideos(clips, frames, size)
    trainer.step([[source[0, 0]]])
    for epoch in range(rounds):
        for name, batches in zip(seconds, (_plain(source, epoch), _batched(source, epoch, batch_size, workers)), strict=True):
            started = time.perf_counter()
            for batch in batches:
                trainer.step([batch])
            seconds[name].append(time.perf_counter() - started)
    table = Table("training", show_edge=False)
    for heading in ("videos a second", "times the plain loop"):
        table.add_column(heading, justify="right")
    plain = next(iter(seconds.values()))
    for name, values in seconds.items():
        ratio = statistics.median(one / other for one, other in zip(plain, values, strict=True))
        table.add_row(name, f"{len(clips) / statistics.median(values):.2f}", f"{ratio:.2f}")
    console = new_console()
    console.print(f"{architecture}, {len(clips)} videos, {rounds} rounds taking turns")
    console.print(table)


def _trainer(architecture: str, clips: tuple[Clip, ...], classes: tuple[str, ...], frames: int, size: int) -> Trainer:
    config = {"classes": len(classes), "frames": frames, "size": size}
    mean, deviation = channel_statistics(clips, frames, size, videos=4)
    info = RunInfo(architecture, config, classes, tuple(mean), tuple(deviation), 25.0)
    trainer = Trainer(build(architecture, config), info, TrainingConfig(), Fabric(accelerator="cpu", devices=1))
    trainer.network.train()
    return trainer


def _plain(source: TrainingVideos, epoch: int) -> Iterable[list[Item]]:
    return ([source[epoch, index]] for index in range(len(source)))


def _batched(source: TrainingVideos, epoch: int, batch_size: int, workers: int) -> Iterable[list[Item]]:
    order = EpochBatches(len(source), batch_size, 0, range(epoch, epoch + 1))
    return loader(source, workers, batch_sampler=order)
