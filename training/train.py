"""Train a network on a data set and write the run: a checkpoint after each epoch, and the network of the best one at the end."""

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

from clipstep.network.rng_state import preserved_rng_state
from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.video import VideoError
from clipstep.runtime.wording import counted
from clipstep.training.config import FREE_TO_CHANGE, TrainingConfig
from clipstep.training.data.balance import balanced_weights, describe_balance
from clipstep.training.data.batches import EpochBatches
from clipstep.training.data.cache import FrameCache
from clipstep.training.data.lists import Clip, DataSet, split_by_group
from clipstep.training.data.subclips import TestVideos, TrainingVideos, channel_statistics, short_side
from clipstep.training.data.trained_on import KEY, TrainedOn
from clipstep.training.finetune import InitialWeights, describe_initial_weights, load_initial_weights
from clipstep.training.history import History
from clipstep.training.metrics import largest_share, top_k_share
from clipstep.training.models import build
from clipstep.training.predict import predict_videos, video_logits
from clipstep.training.probe import check_trainable, describe_rates, frame_rates, median_rate, sample_subclips
from clipstep.training.progress import check_room, is_finished, is_up_to_date, load_progress, progress_folder, resume, save_progress
from clipstep.training.run import CHECKPOINT, LOG, Run, RunInfo, check_out, load_run, note_in_run, save_run, subclip_shape
from clipstep.training.trainer import Trainer

RATES = "video_rates"
"""The key under which a run's summary has the lowest and the highest frame rate of the training videos."""


@dataclass(frozen=True)
class Job:
    """A training: which network, on which data, with which config, and the folder that the run is written to."""

    data: DataSet
    architecture: str
    model_config: Mapping[str, int]
    config: TrainingConfig
    out: Path
    cache: Path | None = None
    resume: bool = False
    initial: InitialWeights | None = None
    """The weights to start from; None for random ones."""
    force: bool = False
    """Whether a finished run in ``out`` is replaced, once the new one is complete."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape ``(T, size, channels)`` of a subclip."""
        return subclip_shape(self.model_config)


@preserved_rng_state()
def train(job: Job, console: Console) -> Run | None:
    """Train on the training list, measure top-1 on the test list, and write the run to ``job.out``.

    After each epoch the whole state is saved in the checkpoint. With ``job.resume`` a training that was stopped continues from there as if it had
    never stopped, and a finished one continues with more epochs. A finished run is replaced only once the new one is complete. If several processes
    train together, only the first one returns the run.

    The random generators of torch, NumPy and Python are seeded for the training, and restored afterwards.

    Raises:
        ClipstepError: the data, the sizes, the checkpoint or the disk do not allow it; the loss is not finite; another process writes to ``job.out``.
    """
    with write_lock(job.out) if _is_first_process() else nullcontext():
        return _train(job, console)


def _is_first_process() -> bool:
    """Whether this is the process that writes the run; known even before `launch` starts the other processes."""
    return not any(int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def _train(job: Job, console: Console) -> Run | None:
    check_out(job.out, resume=job.resume, force=job.force)
    clips, held = _lists(job)
    saved = load_progress(job.out, _settings(job), job.config.epochs) if job.resume else None
    if saved and is_up_to_date(job.out) and len(saved["history"]["rows"]) == job.config.epochs:
        console.print(f"{job.out}: the training of {counted(job.config.epochs, 'epoch')} is done; more --epochs go on with it", soft_wrap=True)
        return _with_record(job, load_run(job.out), console)
    for warning in job.data.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    console.print(describe_balance(clips, job.data.labels), soft_wrap=True)
    lightning.seed_everything(job.config.seed, verbose=False)
    network = build(job.architecture, job.model_config)
    check_trainable(network, *job.shape)
    check_room(job.out, network)
    init = load_initial_weights(network, job.initial, job.architecture, job.model_config, job.data.labels) if job.initial else None
    fabric = launch(job.config)
    console.quiet = console.quiet or fabric.global_rank > 0
    if init is not None:
        console.print(describe_initial_weights(init, job.data.labels), soft_wrap=True)
    saved = fabric.broadcast(saved)
    info, sample = _facts(fabric, job, clips, saved)
    console.print(describe_rates(info.training[RATES], info.fps), soft_wrap=True)
    cache = _cache(job, clips, info.fps, console)
    trained_on = _trained_on(job) if fabric.global_rank == 0 else {}
    weights = balanced_weights(clips, len(job.data.labels)) if job.config.class_weights else None
    trainer, history = Trainer(network, info, job.config, fabric, weights), History(job.config.epochs)
    if saved:
        history, where = resume(trainer, saved, job.config)
        console.print(where, soft_wrap=True)
    done = len(history.rows)
    try:
        _epochs(job, trainer, history, clips, held, cache, console)
    except KeyboardInterrupt:
        if len(history.rows) == done:
            console.print(_untouched(job, done), soft_wrap=True)
        if len(history.rows) == done or fabric.world_size > 1:
            raise
        console.print(f"interrupted: the network of epoch {history.best_epoch} is kept")
    broken = _gathered(fabric, trainer.broken)
    if fabric.global_rank > 0:
        return None
    if is_up_to_date(job.out) and len(history.rows) == done:
        console.print(f"{job.out}: no time or steps are left for another epoch; it stays as it is", soft_wrap=True)
        return load_run(job.out)
    began = {} if init is None else {"init": init}
    summary = {
        **asdict(job.config),
        **info.training,
        "processes": fabric.world_size,
        **began,
        **_data_warnings(job),
        **_counts(history, clips, held, broken),
        KEY: trained_on,
    }
    return _finish(job, history, replace(info, training=summary), sample, trainer.evaluated if held else None, console)


def _lists(job: Job) -> tuple[Sequence[Clip], Sequence[Clip]]:
    """Return the clips to train on, and those to validate on: the data set's own, or a part of the training list that is held out."""
    if job.data.validation:
        return job.data.train, job.data.validation
    return split_by_group(job.data.train, job.config.validation, job.config.seed)


def _trained_on(job: Job) -> dict[str, Any]:
    own = TrainedOn.of((*job.data.train, *job.data.validation))
    return (own.fine_tuned_from(job.initial.trained_on) if job.initial else own).values()


def _with_record(job: Job, run: Run, console: Console) -> Run:
    """Return the finished run with a record of what it was trained on, which runs of earlier versions lack.

    The checkpoint has shown that the training list is still the same.
    """
    if KEY in run.info.training:
        return run
    note_in_run(job.out, {KEY: _trained_on(job)})
    console.print(f"noted in {job.out} what it was trained on: {counted(len(job.data.train), 'video')} of the training list", soft_wrap=True)
    return load_run(job.out)


def _data_warnings(job: Job) -> dict[str, Any]:
    return {"warnings": list(job.data.warnings)} if job.data.warnings else {}


def _untouched(job: Job, done: int) -> str:
    """Return a sentence that says what an interrupt before the end of an epoch has left."""
    if is_finished(job.out):
        return f"interrupted before an epoch was over: the finished run in {job.out} is unchanged"
    if done:
        return f"interrupted before another epoch was over: --resume goes on after epoch {done}"
    return "interrupted before the first epoch was over: nothing is kept"


def _epochs(
    job: Job, trainer: Trainer, history: History, clips: Sequence[Clip], held: Sequence[Clip], cache: FrameCache | None, console: Console
) -> None:
    config, fabric = job.config, trainer.fabric
    remaining = range(len(history.rows), config.epochs)
    order = EpochBatches(len(clips), config.batch_size, config.seed, remaining, fabric.global_rank, fabric.world_size)
    fps = trainer.info.fps
    videos = TrainingVideos(clips, *job.shape, fps=fps, seed=config.seed, flip=config.flip, cache=cache)
    held_here = TestVideos(held[fabric.global_rank :: fabric.world_size], *job.shape, fps=fps)
    batches = iter(loader(videos, config.workers, batch_sampler=order))
    planned = _planned_epochs(config, order.per_epoch)
    started = time.monotonic() - 60 * history.minutes

    def out_of_time() -> bool:
        return config.max_minutes is not None and time.monotonic() - started > 60 * config.max_minutes

    for epoch in remaining:
        count = min(order.per_epoch, _batches_left(config, epoch, order.per_epoch))
        if not count or (history.rows and trainer.in_any_process(out_of_time())):
            break
        with _bar(console, f"epoch {epoch + 1}/{planned}", count) as advance:
            result = trainer.epoch(epoch, batches, count, out_of_time, advance)
        result = replace(result, complete=result.complete and count == order.per_epoch)
        if not result.videos:
            raise VideoError(f"no usable video in the training list: {next(iter(trainer.broken.values()))}", fix="correct the list")
        validated = trainer.validate(loader(held_here, config.workers, batch_size=1)) if held else None
        history.minutes = (time.monotonic() - started) / 60
        watched = history.add(result, trainer.learning_rate, validated, trainer.evaluated)
        if result.complete:
            trainer.end_epoch(watched)
        if fabric.global_rank == 0:
            save_progress(progress_folder(job.out), _settings(job), trainer, history)
        console.print(history.line(planned), soft_wrap=True)


def _planned_epochs(config: TrainingConfig, per_epoch: int) -> int:
    """Return the number of epochs after which the training ends, if its time is not over before; ``max_steps`` may cut the last one short."""
    if config.max_steps is None:
        return config.epochs
    return min(config.epochs, ceil(config.max_steps / ceil(per_epoch / config.accumulate)))


def _batches_left(config: TrainingConfig, epochs_done: int, per_epoch: int) -> int:
    """Return how many batches ``max_steps`` optimizer steps still allow after ``epochs_done`` complete epochs."""
    if config.max_steps is None:
        return per_epoch
    return max(0, config.max_steps - epochs_done * -(-per_epoch // config.accumulate)) * config.accumulate


def _finish(job: Job, history: History, info: RunInfo, sample: Tensor, last: nn.Module | None, console: Console) -> Run:
    network = build(job.architecture, job.model_config).eval()
    network.load_state_dict(history.best)
    predictions, unusable = predict_videos(lambda subclips: video_logits(network, subclips, info), job.data.test, job.shape, info.fps, console)
    tested = {
        "test_videos": len(predictions),
        "skipped_test_videos": unusable,
        "test_top1": top_k_share(predictions, 1),
        "test_largest_class_share": largest_share(clip.label for clip in job.data.test),
    }
    run = Run(network, replace(info, training={**info.training, **tested}), sample)
    here = progress_folder(job.out)
    here.mkdir(parents=True, exist_ok=True)
    (here / LOG).write_text(history.csv(), encoding="utf-8")
    whole = any(row["complete"] for row in history.rows)  # If there is none, a checkpoint in the folder is from an earlier training.
    checkpoints = [file for file in (here / CHECKPOINT, job.out / CHECKPOINT) if whole and file.exists()]
    kept = [here / LOG, *checkpoints[:1]]
    save_run(job.out, run, copy.deepcopy(last).cpu().eval() if last else None, kept, replace=True)
    return run


def launch(config: TrainingConfig) -> Fabric:
    """Start the processes that train together, unless torchrun did, and return this process' Fabric.

    Raises:
        ClipstepError: this machine does not have that accelerator, or not that many devices.
    """
    local, world = config.devices, config.devices * config.nodes
    if "LOCAL_WORLD_SIZE" in os.environ:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    try:
        fabric = Fabric(accelerator=config.accelerator, devices=local, num_nodes=world // local, strategy="ddp" if world > 1 else "auto")
    except (MisconfigurationException, RuntimeError) as error:
        raise ClipstepError(
            f"cannot train on {local} {config.accelerator}", got=error_summary(error), fix="choose another --accelerator or fewer --devices"
        ) from error
    fabric.launch()
    return fabric


def _settings(job: Job) -> dict[str, Any]:
    """Return the settings that must be the same when a training is resumed."""
    decisive = {key: value for key, value in asdict(job.config).items() if key not in FREE_TO_CHANGE}
    train, validation = ([_name(clip) for clip in clips] for clips in (job.data.train, job.data.validation))
    numbers = None if job.data.layout == "ucf101" else [clip.label for clip in job.data.train]  # There a video's folder is its class.
    own = {"validation list": validation or None, "labels of the training list": numbers}
    lists = {"class names": list(job.data.labels), "training list": train, **own}
    return {"architecture": job.architecture, **job.model_config, **decisive, **lists, "init": job.initial.sha256 if job.initial else None}


def _name(clip: Clip) -> str:
    return f"{clip.path.parent.name}/{clip.shown_path.name}"


def _facts(fabric: Fabric, job: Job, clips: Sequence[Clip], saved: dict[str, Any] | None) -> tuple[RunInfo, Tensor]:
    """Return the run's info (normalisation, frame rate) and its sample subclips; the first process measures them and sends them to the others."""
    found: Any = None
    if fabric.global_rank == 0:
        facts = saved["facts"] if saved else _measured(job, clips)
        found = (facts, sample_subclips(job.data.test, *job.shape, fps=facts["fps"]))
    facts, sample = fabric.broadcast(found)
    training = {RATES: facts[RATES]}
    info = RunInfo(
        job.architecture, dict(job.model_config), job.data.labels, tuple(facts["mean"]), tuple(facts["std"]), facts["fps"], training=training
    )
    return info, sample


def _measured(job: Job, clips: Sequence[Clip]) -> dict[str, Any]:
    rates = frame_rates(clips)
    initial = job.initial.info if job.initial is not None else None
    fps = job.config.fps or (initial.fps if initial is not None else median_rate(rates))
    mean, std = _normalisation(job, clips, fps)
    return {"mean": mean, "std": std, "fps": fps, RATES: [rates[0], rates[-1]]}


def _normalisation(job: Job, clips: Sequence[Clip], fps: float) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std: those of the run whose weights the training starts from, since they fit its batch norms; otherwise measured ones."""
    if job.initial is not None and job.initial.info is not None:
        return job.initial.info.mean, job.initial.info.std
    return channel_statistics(clips, *job.shape, fps=fps)


def _cache(job: Job, clips: Sequence[Clip], fps: float, console: Console) -> FrameCache | None:
    if job.cache is None:
        return None
    cache = FrameCache(job.cache)
    cuts = [clip.cut for clip in clips]
    full, now = cache.prepare([clip.path for clip in clips], job.shape[0], short_side(job.shape[1]), fps, cuts=cuts)
    console.print(f"cache {job.cache}: about {full / 1e6:.0f} MB for {len(clips)} videos; {now / 1e6:.0f} MB are there")
    return cache


@contextmanager
def _bar(console: Console, name: str, steps: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=steps)
        yield lambda count: bar.advance(task, count)


def loader(videos: TrainingVideos | TestVideos, workers: int, **batching: Any) -> DataLoader[Any]:
    """Return a loader of batches. A batch is a list of videos; ``workers`` processes decode them."""
    return DataLoader(videos, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread, **batching)


def _one_thread(_: int) -> None:
    """Give a worker process one thread: workers with several threads each would compete for the cores."""
    threadpool_limits(1)


def _gathered(fabric: Fabric, broken: dict[str, str]) -> dict[str, str]:
    if fabric.world_size == 1:
        return broken
    every: list[dict[str, str]] = [{} for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(every, broken)
    return {path: reason for one in every for path, reason in one.items()}


def _counts(history: History, clips: Sequence[Clip], held: Sequence[Clip], broken: Mapping[str, str]) -> dict[str, Any]:
    validated = {"validation_top1": history.rows[history.best_epoch - 1]["validation_top1"]} if held else {}
    return {
        "epochs_done": sum(row["complete"] for row in history.rows),
        "best_epoch": history.best_epoch,
        "minutes": round(history.minutes, 2),
        "train_videos": sum(str(clip.shown_path) not in broken for clip in clips),
        "validation_videos": sum(str(clip.shown_path) not in broken for clip in held),
        "skipped_videos": dict(broken),
        **validated,
    }
