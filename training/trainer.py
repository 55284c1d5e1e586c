"""The trainer: a network in training with its optimizer and schedule. It runs epochs and optimizer steps, in one process or in several together."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clipstep.runtime.errors import ClipstepError
from clipstep.training.config import OPTIMIZERS, SCHEDULES, TrainingConfig
from clipstep.training.data.subclips import BrokenVideo, Video
from clipstep.training.losses import subclip_losses
from clipstep.training.predict import video_logits
from clipstep.training.run import RunInfo

Item = Video | BrokenVideo | ClipstepError


@dataclass(frozen=True)
class EpochResult:
    """The result of an epoch: the mean loss of a video, the number of videos used, the seconds that it took, the share of that time spent waiting for
    data, and whether all batches were done."""

    loss: float
    videos: int
    seconds: float
    waiting_share: float
    complete: bool


class Trainer:
    """A network in training with its optimizer, schedule and averaged weights.

    Each process computes the gradients of its own videos. They are summed over the processes once for each optimizer step and not after each
    backward pass, because a process with longer videos makes more backward passes. Batch norms take their statistics from the videos of
    one process, as is usual, and average them over the processes after each epoch. ``class_weights`` are those of `subclip_losses`.
    """

    def __init__(
        self, network: nn.Module, info: RunInfo, config: TrainingConfig, fabric: Fabric, class_weights: Sequence[float] | None = None
    ) -> None:
        self.fabric = fabric
        self.config = config
        self.info = info
        self.class_weights = class_weights
        self.network = network.to(fabric.device)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = OPTIMIZERS[config.optimizer](self.network, config)
        self.schedule = SCHEDULES[config.schedule](self.optimizer, config)
        mean: Any = get_ema_multi_avg_fn
        self.averaged = AveragedModel(self.network, multi_avg_fn=mean(config.ema), use_buffers=True) if config.ema else None
        self.broken: dict[str, str] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and saved: the averaged one if there is one."""
        return self.averaged.module if self.averaged else self.network

    @property
    def learning_rate(self) -> float:
        """The current learning rate."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def epoch(self, epoch: int, batches: Iterator[list[Item]], count: int, stop: Callable[[], bool], advance: Callable[[int], None]) -> EpochResult:
        """Train on ``count`` batches, an optimizer step for each ``config.accumulate`` of them; end early if ``stop()`` in any process."""
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, epoch, self.fabric.global_rank)).generate_state(1)[0]))
        self.network.train()
        started, waited, total, videos, left = time.monotonic(), 0.0, 0.0, 0, count
        while left and not (videos and self.in_any_process(stop())):
            taken = min(self.config.accumulate, left)
            waiting = time.monotonic()
            step = [next(batches) for _ in range(taken)]
            waited += time.monotonic() - waiting
            loss, used = self.step(step)
            total, videos, left = total + loss * used, videos + used, left - taken
            advance(taken)
        self._average_statistics()
        seconds = time.monotonic() - started
        return EpochResult(total / videos if videos else 0.0, videos, seconds, waited / max(seconds, 1e-9), left == 0)

    def step(self, batches: Sequence[Sequence[Item]]) -> tuple[float, int]:
        """Make one optimizer step on these batches of all processes; return the mean loss of a video, and the number of videos used.

        Raises:
            ClipstepError: the loss is not finite, and the weights are left unchanged; or one of the items is an error.
        """
        usable = [self._usable(batch) for batch in batches]
        here = sum(map(len, usable))
        everywhere = int(self._sum(torch.tensor([float(here)], device=self.fabric.device)))
        if everywhere == 0:
            return 0.0, 0
        self.optimizer.zero_grad()
        loss = torch.zeros(1, device=self.fabric.device)
        for videos in filter(None, usable):
            for part in self.losses(videos):
                share = part * (len(videos) / everywhere)
                torch.autograd.backward(share)
                loss += share.detach()
        loss = self._sum_gradients(loss)
        if not torch.isfinite(loss):
            names = ", ".join(str(video.path) for videos in usable for video in videos)
            raise ClipstepError(f"the loss is {float(loss)}", got=f"a batch of {names}", fix="lower --learning-rate, or look at these videos")
        self.optimizer.step()
        if self.averaged:
            self.averaged.update_parameters(self.network)
        return float(loss), everywhere

    def losses(self, videos: Sequence[Video]) -> Iterator[Tensor]:
        """Yield one loss for each window of subclips; their sum is the mean loss of these videos."""
        c = self.config
        how: dict[str, Any] = {"loss": c.loss, "truncate": c.truncate, "weights": self.class_weights, "autocast": self._autocast}
        return subclip_losses(self.network, videos, self.info.mean, self.info.std, **how)

    def validate(self, batches: Iterable[list[Item]]) -> tuple[float, float]:
        """Return the mean cross-entropy and the top-1 accuracy after each video's last subclip; each process brings its own videos."""
        network = self.evaluated.eval()
        sums = torch.zeros(3, device=self.fabric.device)
        for item in (item for batch in batches for item in self._usable(batch)):
            logits = video_logits(network, item.subclips, self.info)[-1]
            label = torch.tensor(item.label, device=logits.device)
            sums += torch.stack([F.cross_entropy(logits, label), (logits.argmax() == label).float(), torch.ones((), device=logits.device)])
        loss, correct, count = self._sum(sums).tolist()
        if not count:
            raise ClipstepError("no usable video to validate on", fix="correct the list, or train with --validation 0")
        return loss / count, correct / count

    def end_epoch(self, loss: float) -> None:
        """Update the learning rate; the plateau schedule watches ``loss``."""
        if self.config.schedule == "plateau":
            self.schedule.step(loss)
        else:
            self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Return everything that a training changes, as tensors and JSON values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "broken": self.broken,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.network.load_state_dict(state["network"])
        optimizer = state["optimizer"]
        self.optimizer.load_state_dict({**optimizer, "state": {int(key): value for key, value in optimizer["state"].items()}})
        self.schedule.load_state_dict(state["schedule"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.broken = state["broken"]

    def _usable(self, batch: Sequence[Item]) -> list[Video]:
        videos = []
        for item in batch:
            if isinstance(item, ClipstepError):
                raise item
            if isinstance(item, Video):
                videos.append(item)
            elif str(item.path) not in self.broken:
                self.broken[str(item.path)] = item.reason
                warnings.warn(f"skipped: {item.reason}", stacklevel=1)
        return videos

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.fabric.device.type, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()

    def _sum(self, value: Tensor) -> Tensor:
        total: Tensor = self.fabric.all_reduce(value, reduce_op="sum")
        return total

    def in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all processes get the same answer."""
        return bool(self._sum(torch.tensor([float(flag)], device=self.fabric.device)))

    def _sum_gradients(self, loss: Tensor) -> Tensor:
        """Sum the gradients and the loss over all processes in one exchange, and return the summed loss."""
        if self.fabric.world_size == 1:
            return loss
        for p in self.parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        total = self._sum(torch.cat([loss, *(gradient.flatten() for gradient in gradients)]))
        parts = torch.split(total[1:], [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return total[:1]

    def _average_statistics(self) -> None:
        if self.fabric.world_size > 1:
            for network in dict.fromkeys((self.network, self.evaluated)):
                for buffer in network.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))
