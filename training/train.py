"""Training on subclips: the stream buffer is carried along each video. Source: the paper, sections on data and training."""

import copy
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError, frame_rate
from clipstep.training.data.lists import Clip, DataSet
from clipstep.training.data.subclips import BrokenVideo, SubclipDataset, Video, channel_statistics, normalise, read_subclips
from clipstep.training.models import build
from clipstep.training.run import Run, RunInfo

SAMPLE_SUBCLIPS = 8


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults are the paper's; ``max_minutes`` ends it early, at the end of a batch."""

    epochs: int = 100
    batch_size: int = 16
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    patience: int = 10
    max_minutes: float | None = None
    workers: int = 2
    seed: int = 0


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainingConfig], torch.optim.Optimizer]] = {
    "sgd": lambda network, c: torch.optim.SGD(network.parameters(), c.learning_rate, c.momentum, weight_decay=c.weight_decay),
    "adamw": lambda network, c: torch.optim.AdamW(network.parameters(), c.learning_rate, weight_decay=c.weight_decay),
}


class SubclipTrainer(lightning.LightningModule):
    """Cross-entropy after every subclip of a video, states carried from subclip to subclip but not their gradients.

    Each video weighs the same, however long. Videos of a batch that have ended drop out, so that no padding is
    computed and none enters the batch norms' statistics.
    """

    def __init__(self, network: nn.Module, info: RunInfo, config: TrainingConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.info = info
        self.config = config
        self.broken: dict[str, str] = {}
        self.epoch_loss = 0.0
        self.epoch_videos = 0

    def configure_optimizers(self) -> Any:
        c = self.config
        optimizer = OPTIMIZERS[c.optimizer](self.network, c)
        return [optimizer], [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=c.patience)]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # Each subclip is moved when it is its turn.

    def training_step(self, batch: list[Video | BrokenVideo], _: int) -> None:
        for item in batch:
            if isinstance(item, BrokenVideo) and str(item.path) not in self.broken:
                self.broken[str(item.path)] = item.reason
                warnings.warn(f"skipped: {item.reason}", stacklevel=1)
        videos = [item for item in batch if isinstance(item, Video)]
        if not videos:
            return
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = 0.0
        for part in subclip_losses(self.network, videos, self.info.mean, self.info.deviation):
            self.manual_backward(part)
            loss += float(part.detach())
        optimizer.step()
        self.epoch_loss += loss * len(videos)
        self.epoch_videos += len(videos)
        self.log("loss", loss, prog_bar=True, batch_size=len(videos))

    def on_train_epoch_end(self) -> None:
        if self.epoch_videos:
            scheduler: Any = self.lr_schedulers()
            scheduler.step(self.epoch_loss / self.epoch_videos)


def subclip_losses(network: nn.Module, videos: Sequence[Video], mean: Sequence[float], deviation: Sequence[float]) -> Any:
    """Yields one loss a subclip position; their sum is the batch's loss, the mean over videos of the mean over subclips.

    The states are detached between subclips, so each loss can be back-propagated at once and its graph freed:
    memory does not grow with the length of a video.
    """
    ordered = sorted(videos, key=lambda video: len(video.subclips), reverse=True)
    lengths = torch.tensor([len(video.subclips) for video in ordered])
    device = next(network.parameters()).device
    labels = torch.tensor([video.label for video in ordered], device=device)
    states = [state.to(device).repeat(len(ordered), *[1] * (state.ndim - 1)) for state in initial_states(network)]
    for position in range(int(lengths[0])):
        active = int((lengths > position).sum())
        subclips = torch.stack([video.subclips[position] for video in ordered[:active]]).to(device)
        logits, *states = network(normalise(subclips, mean, deviation), *(state[:active] for state in states))
        states = [state.detach() for state in states]
        losses = F.cross_entropy(logits, labels[:active], reduction="none")
        yield (losses / lengths[:active].to(device)).sum() / len(ordered)


def initial_states(network: nn.Module) -> list[Tensor]:
    """The network's states before a video's first subclip, batch 1; none if it is a plain clip network."""
    states: Any = getattr(network, "initial_states", dict)
    return list(states().values())


def train(data: DataSet, architecture: str, model_config: dict[str, int], config: TrainingConfig, console: Console) -> Run:
    """Trains a network on the data set's training list and measures top-1 on its test list."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    frames, size = model_config["frames"], model_config["size"]
    network = build(architecture, model_config)
    _check_trainable(network, frames, size)
    mean, deviation = channel_statistics(data.train, frames, size)
    info = RunInfo(architecture, model_config, data.classes, tuple(mean), tuple(deviation), _median_rate(data.train))
    sample = _sample(data.test, frames, size)
    module = SubclipTrainer(network, info, config)
    loader = DataLoader(
        SubclipDataset(data.train, frames, size, corners=True),
        config.batch_size,
        shuffle=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        collate_fn=list,
        worker_init_fn=_one_thread,
    )
    started = time.monotonic()
    trainer = _lightning_trainer(config, console)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*number of training batches.*|.*LeafSpec.*")
        trainer.fit(module, loader)
    minutes = (time.monotonic() - started) / 60
    network.eval()
    top1, unusable = evaluate_top1(network, data.test, info, frames, size, console)
    summary = {
        **asdict(config),
        "epochs_done": trainer.current_epoch,
        "minutes": round(minutes, 2),
        "train_videos": len(data.train) - len(module.broken),
        "skipped_videos": module.broken,
        "test_videos": len(data.test) - len(unusable),
        "skipped_test_videos": unusable,
        "test_top1": top1,
        "test_largest_class_share": _largest_share(data.test),
    }
    return Run(network, RunInfo(**{**asdict(info), "training": summary}), sample)


def evaluate_top1(network: nn.Module, clips: Sequence[Clip], info: RunInfo, frames: int, size: int, console: Console) -> tuple[float, dict[str, str]]:
    """Share of videos whose logits after the last subclip are largest for the right class, and the unusable videos."""
    right = 0
    unusable: dict[str, str] = {}
    data = SubclipDataset(clips, frames, size, corners=False)
    for index in track(range(len(data)), "testing", console=console, disable=not console.is_terminal):
        item = data[index]
        if isinstance(item, BrokenVideo):
            unusable[str(item.path)] = item.reason
            continue
        right += int(video_logits(network, item.subclips, info)[-1].argmax()) == item.label
    if len(unusable) == len(data):
        raise VideoError(f"no usable video in the test list: {next(iter(unusable.values()))}")
    return right / (len(data) - len(unusable)), unusable


@torch.no_grad()
def video_logits(network: nn.Module, subclips: Tensor, info: RunInfo) -> Tensor:
    """The logits after each subclip of one video, ``(S, classes)``, from ``(S, T, H, W, 3)`` uint8."""
    states = initial_states(network)
    every = []
    for subclip in subclips:
        logits, *states = network(normalise(subclip[None], info.mean, info.deviation), *states)
        every.append(logits[0])
    return torch.stack(every)


def _check_trainable(network: nn.Module, frames: int, size: int) -> None:
    """One video may be left in a batch, and batch norms need more than one value a channel."""
    probe = copy.deepcopy(network).train()
    try:
        probe(torch.zeros(1, 3, frames, size, size), *initial_states(probe))
    except ValueError as error:
        raise ClipstepError(
            "subclips too small to train on", got=f"{frames} frames of {size}x{size}: {error}", fix="use more --frames or a larger --size"
        ) from error


def _one_thread(_: int) -> None:
    """A worker's matrix products are small; several workers with several threads each would fight for the cores."""
    threadpool_limits(1)


class _EpochLines(Callback):
    """One line an epoch, for terminals and logs alike."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console = console
        self.epochs = epochs
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SubclipTrainer)
        if pl_module.epoch_videos:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.console.print(
                f"epoch {trainer.current_epoch + 1}/{self.epochs}  loss {pl_module.epoch_loss / pl_module.epoch_videos:.4f}"
                f"  learning rate {rate:g}  {time.monotonic() - self.started:.0f} s"
            )
        pl_module.epoch_loss, pl_module.epoch_videos = 0.0, 0


def _lightning_trainer(config: TrainingConfig, console: Console) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=config.epochs,
        max_time=None if config.max_minutes is None else {"seconds": round(config.max_minutes * 60)},
        callbacks=[_EpochLines(console, config.epochs)],
        enable_progress_bar=console.is_terminal,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )


def _sample(clips: Sequence[Clip], frames: int, size: int) -> Tensor:
    """The first subclips of the usable test videos, one video after the other."""
    found: list[Tensor] = []
    for clip in clips:
        try:
            found.extend(read_subclips(clip.path, frames, size))
        except VideoError:
            continue
        if len(found) >= SAMPLE_SUBCLIPS:
            break
    if not found:
        raise VideoError("no usable video in the test list", fix="correct the list")
    return torch.stack(found[:SAMPLE_SUBCLIPS])


def _median_rate(clips: Sequence[Clip]) -> float:
    rates = []
    for clip in clips:
        try:
            rates.append(frame_rate(clip.path))
        except VideoError:
            continue
    if not rates:
        raise VideoError("no training video states a frame rate", fix="re-encode the videos")
    return round(statistics.median(rates), 3)


def _largest_share(clips: Sequence[Clip]) -> float:
    labels = [clip.label for clip in clips]
    return max(labels.count(label) for label in set(labels)) / len(labels)
