"""A data set in, a run out: epochs with a checkpoint after each, the best of them kept."""

import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipstep.network.generators import restored_generators
from clipstep.runtime.errors import ClipstepError, first_line
from clipstep.runtime.lock import one_writer
from clipstep.runtime.video import VideoError
from clipstep.runtime.wording import counted
from clipstep.training.config import FREE_TO_CHANGE, TrainingConfig
from clipstep.training.course import Course
from clipstep.training.data.batches import EpochBatches
from clipstep.training.data.cache import FrameCache
from clipstep.training.data.lists import Clip, DataSet, split_by_group
from clipstep.training.data.subclips import TestVideos, TrainingVideos, channel_statistics, short_side
from clipstep.training.data.trained_on import KEY, TrainedOn
from clipstep.training.evaluation import largest_share, predict_videos, top_k_share
from clipstep.training.facts import check_trainable, median_rate, sample_subclips
from clipstep.training.finetune import Start, said, start_from
from clipstep.training.models import build
from clipstep.training.predict import video_logits
from clipstep.training.progress import check_room, is_finished, is_newest, keep, progress_folder, saved_state, taken_up
from clipstep.training.run import CHECKPOINT, LOG, Run, RunInfo, check_out, load_run, note_in_run, save_run, subclip_shape
from clipstep.training.trainer import Trainer


@dataclass(frozen=True)
class Job:
    """What to train on what, how, and where to."""

    data: DataSet
    architecture: str
    model_config: Mapping[str, int]
    config: TrainingConfig
    out: Path
    cache: Path | None = None
    resume: bool = False
    start: Start | None = None
    """The weights to begin with; None for random ones."""
    force: bool = False
    """Replace a finished run in ``out``, once the new one is whole."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a subclip: frames, height, width and channels."""
        return subclip_shape(self.model_config)


@restored_generators()
def train(job: Job, console: Console) -> Run | None:
    """Trains on the training list, measures top-1 on the test list, and writes the run to ``job.out``.

    After each epoch the whole state is in the run folder's checkpoint; with ``resume`` a training that was stopped goes
    on from there as if it had not been, and a finished one with more epochs. A finished run stays as it is until the new one is whole.
    Of several processes only the first gives the run.

    The random generators of torch, numpy and Python are seeded, and afterwards as they were.

    Raises:
        ClipstepError: the data, the sizes, the checkpoint or the disk do not allow it, the loss is not finite, or another process is
            writing to ``job.out``.
    """
    with one_writer(job.out) if _is_first_process() else nullcontext():
        return _train(job, console)


def _is_first_process() -> bool:
    """Whether this is the process that writes, also before ``launch``, which starts the others by the same command."""
    return not any(int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def _train(job: Job, console: Console) -> Run | None:
    check_out(job.out, resume=job.resume, force=job.force)
    clips, held = split_by_group(job.data.train, job.config.validation, job.config.seed)
    saved = saved_state(job.out, _about(job), job.config.epochs) if job.resume else None
    if saved and is_newest(job.out) and len(saved["course"]["rows"]) == job.config.epochs:
        console.print(f"{job.out}: the training of {counted(job.config.epochs, 'epoch')} is done; more --epochs go on with it", soft_wrap=True)
        return _with_record(job, load_run(job.out), console)
    for warning in job.data.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    lightning.seed_everything(job.config.seed, verbose=False)
    network = build(job.architecture, job.model_config)
    check_trainable(network, *job.shape)
    check_room(job.out, network)
    init = start_from(network, job.start, job.architecture, job.model_config, job.data.classes) if job.start else None
    fabric = launch(job.config)
    console.quiet = console.quiet or fabric.global_rank > 0
    if init is not None:
        console.print(said(init, job.data.classes), soft_wrap=True)
    saved = fabric.broadcast(saved)
    cache = _cache(job, clips, console)
    info, sample = _facts(fabric, job, clips, saved)
    trained_on = _trained_on(job) if fabric.global_rank == 0 else {}
    trainer, course = Trainer(network, info, job.config, fabric), Course(job.config.epochs)
    if saved:
        course, where = taken_up(trainer, saved, job.config)
        console.print(where, soft_wrap=True)
    done = len(course.rows)
    try:
        _epochs(job, trainer, course, clips, held, cache, console)
    except KeyboardInterrupt:
        if len(course.rows) == done:
            console.print(_untouched(job, done), soft_wrap=True)
        if len(course.rows) == done or fabric.world_size > 1:
            raise
        console.print(f"interrupted: the network of epoch {course.best_epoch} is kept")
    broken = _gathered(fabric, trainer.broken)
    if fabric.global_rank > 0:
        return None
    if is_newest(job.out) and len(course.rows) == done:
        console.print(f"{job.out}: no time or steps are left for another epoch; it stays as it is", soft_wrap=True)
        return load_run(job.out)
    began = {} if init is None else {"init": init}
    summary = {**asdict(job.config), "processes": fabric.world_size, **began, **_odd(job), **_counts(course, clips, held, broken), KEY: trained_on}
    return _finish(job, course, replace(info, training=summary), sample, trainer.evaluated if held else None, console)


def _trained_on(job: Job) -> dict[str, Any]:
    own = TrainedOn.of(job.data.train)
    return (own.after(job.start.trained_on) if job.start else own).values()


def _with_record(job: Job, run: Run, console: Console) -> Run:
    """The finished run with a record of what it was trained on: earlier versions kept none, and the checkpoint says that the lists are the same."""
    if KEY in run.info.training:
        return run
    note_in_run(job.out, {KEY: _trained_on(job)})
    console.print(f"noted in {job.out} what it was trained on: {counted(len(job.data.train), 'video')} of the training list", soft_wrap=True)
    return load_run(job.out)


def _odd(job: Job) -> dict[str, Any]:
    return {"warnings": list(job.data.warnings)} if job.data.warnings else {}


def _untouched(job: Job, done: int) -> str:
    """What is there after an interrupt in the first epoch."""
    if is_finished(job.out):
        return f"interrupted before an epoch was over: the finished run in {job.out} is as it was"
    if done:
        return f"interrupted before another epoch was over: --resume goes on after epoch {done}"
    return "interrupted before the first epoch was over: nothing is kept"


def _epochs(
    job: Job, trainer: Trainer, course: Course, clips: Sequence[Clip], held: Sequence[Clip], cache: FrameCache | None, console: Console
) -> None:
    config, fabric = job.config, trainer.fabric
    remaining = range(len(course.rows), config.epochs)
    order = EpochBatches(len(clips), config.batch_size, config.seed, remaining, fabric.global_rank, fabric.world_size)
    videos = TrainingVideos(clips, *job.shape, seed=config.seed, flip=config.flip, cache=cache)
    held_here = TestVideos(held[fabric.global_rank :: fabric.world_size], *job.shape)
    batches = iter(loader(videos, config.workers, batch_sampler=order))
    planned = _planned_epochs(config, order.per_epoch)
    started = time.monotonic() - 60 * course.minutes

    def late() -> bool:
        return config.max_minutes is not None and time.monotonic() - started > 60 * config.max_minutes

    for epoch in remaining:
        count = min(order.per_epoch, _batches_left(config, epoch, order.per_epoch))
        if not count or (course.rows and trainer.in_any_process(late())):
            break
        with _bar(console, f"epoch {epoch + 1}/{planned}", count) as advance:
            facts = trainer.epoch(epoch, batches, count, late, advance)
        facts = replace(facts, whole=facts.whole and count == order.per_epoch)
        if not facts.videos:
            raise VideoError(f"no usable video in the training list: {next(iter(trainer.broken.values()))}", fix="correct the list")
        validated = trainer.validate(loader(held_here, config.workers, batch_size=1)) if held else None
        course.minutes = (time.monotonic() - started) / 60
        watched = course.add(facts, trainer.learning_rate, validated, trainer.evaluated)
        if facts.whole:
            trainer.end_epoch(watched)
        if fabric.global_rank == 0:
            keep(progress_folder(job.out), _about(job), trainer, course)
        console.print(course.line(planned), soft_wrap=True)


def _planned_epochs(config: TrainingConfig, per_epoch: int) -> int:
    """In how many epochs, the last of which may not be whole, the training ends if it has the time."""
    if config.max_steps is None:
        return config.epochs
    return min(config.epochs, ceil(config.max_steps / ceil(per_epoch / config.accumulate)))


def _batches_left(config: TrainingConfig, epochs_done: int, per_epoch: int) -> int:
    """How many batches are left of ``max_steps`` steps of the optimizer after so many whole epochs."""
    if config.max_steps is None:
        return per_epoch
    return max(0, config.max_steps - epochs_done * -(-per_epoch // config.accumulate)) * config.accumulate


def _finish(job: Job, course: Course, info: RunInfo, sample: Tensor, last: nn.Module | None, console: Console) -> Run:
    network = build(job.architecture, job.model_config).eval()
    network.load_state_dict(course.best)
    predictions, unusable = predict_videos(lambda subclips: video_logits(network, subclips, info), job.data.test, job.shape, console)
    tested = {
        "test_videos": len(predictions),
        "skipped_test_videos": unusable,
        "test_top1": top_k_share(predictions, 1),
        "test_largest_class_share": largest_share(clip.label for clip in job.data.test),
    }
    run = Run(network, replace(info, training={**info.training, **tested}), sample)
    here = progress_folder(job.out)
    here.mkdir(parents=True, exist_ok=True)
    (here / LOG).write_text(course.csv(), encoding="utf-8")
    whole = any(row["whole"] for row in course.rows)  # Otherwise a checkpoint that lies there is of a training before this one.
    checkpoints = [file for file in (here / CHECKPOINT, job.out / CHECKPOINT) if whole and file.exists()]
    kept = [here / LOG, *checkpoints[:1]]
    save_run(job.out, run, copy.deepcopy(last).cpu().eval() if last else None, kept, replace=True)
    return run


def launch(config: TrainingConfig) -> Fabric:
    """This process's place: alone, among those that it starts itself, or among those that torchrun started.

    Raises:
        ClipstepError: this machine has no such accelerator, or not so many.
    """
    local, world = config.devices, config.devices * config.nodes
    if "LOCAL_WORLD_SIZE" in os.environ:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    try:
        fabric = Fabric(accelerator=config.accelerator, devices=local, num_nodes=world // local, strategy="ddp" if world > 1 else "auto")
    except (MisconfigurationException, RuntimeError) as error:
        raise ClipstepError(
            f"cannot train on {local} {config.accelerator}", got=first_line(error), fix="choose another --accelerator or fewer --devices"
        ) from error
    fabric.launch()
    return fabric


def _about(job: Job) -> dict[str, Any]:
    """What has to be the same when a training is resumed."""
    decisive = {key: value for key, value in asdict(job.config).items() if key not in FREE_TO_CHANGE}
    clips = [f"{clip.path.parent.name}/{clip.path.name}" for clip in job.data.train]
    lists = {"class names": list(job.data.classes), "training list": clips}
    return {"architecture": job.architecture, **job.model_config, **decisive, **lists, "init": job.start.sha256 if job.start else None}


def _facts(fabric: Fabric, job: Job, clips: Sequence[Clip], saved: dict[str, Any] | None) -> tuple[RunInfo, Tensor]:
    """What the first process measures of the videos: the training frames' statistics and rate, and the run's sample."""
    found: Any = None
    if fabric.global_rank == 0:
        sample = sample_subclips(job.data.test, *job.shape)
        measured = saved["facts"].values() if saved else (*_normalisation(job, clips), median_rate(clips))
        found = (*measured, sample)
    mean, std, fps, sample = fabric.broadcast(found)
    return RunInfo(job.architecture, dict(job.model_config), job.data.classes, tuple(mean), tuple(std), fps), sample


def _normalisation(job: Job, clips: Sequence[Clip]) -> tuple[Sequence[float], Sequence[float]]:
    """That of the run it starts from, to which its weights and batch norms fit; otherwise measured."""
    if job.start is not None and job.start.info is not None:
        return job.start.info.mean, job.start.info.std
    return channel_statistics(clips, *job.shape)


def _cache(job: Job, clips: Sequence[Clip], console: Console) -> FrameCache | None:
    if job.cache is None:
        return None
    cache = FrameCache(job.cache)
    full, now = cache.prepare([clip.path for clip in clips], job.shape[0], short_side(job.shape[1]))
    console.print(f"cache {job.cache}: about {full / 1e6:.0f} MB for {len(clips)} videos; {now / 1e6:.0f} MB are there")
    return cache


@contextmanager
def _bar(console: Console, name: str, steps: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=steps)
        yield lambda count: bar.advance(task, count)


def loader(videos: TrainingVideos | TestVideos, workers: int, **batching: Any) -> DataLoader[Any]:
    """Batches as lists of videos, decoded by ``workers`` processes."""
    return DataLoader(videos, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread, **batching)


def _one_thread(_: int) -> None:
    """A worker's matrix products are small; several workers with several threads each would fight for the cores."""
    threadpool_limits(1)


def _gathered(fabric: Fabric, broken: dict[str, str]) -> dict[str, str]:
    if fabric.world_size == 1:
        return broken
    every: list[dict[str, str]] = [{} for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(every, broken)
    return {path: reason for one in every for path, reason in one.items()}


def _counts(course: Course, clips: Sequence[Clip], held: Sequence[Clip], broken: Mapping[str, str]) -> dict[str, Any]:
    validated = {"validation_top1": course.rows[course.best_epoch - 1]["validation_top1"]} if held else {}
    return {
        "epochs_done": sum(row["whole"] for row in course.rows),
        "best_epoch": course.best_epoch,
        "minutes": round(course.minutes, 2),
        "train_videos": sum(str(clip.path) not in broken for clip in clips),
        "validation_videos": sum(str(clip.path) not in broken for clip in held),
        "skipped_videos": dict(broken),
        **validated,
    }
