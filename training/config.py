"""The training config: all options that decide what a training computes, and on which processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The command line's help reads this file, and must not load PyTorch.
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; ``clipstep train --help`` explains each option.

    ``batch_size`` is the number of videos in a batch of one process, and an optimizer step takes ``accumulate`` batches. The ``loss`` is computed
    after ``"every"`` subclip or the ``"last"`` one, and back-propagated through ``truncate`` subclips. ``validation`` is the share of each class's
    groups that is held out to choose the best epoch; ``class_weights`` may be ``"balanced"``, see `balanced_weights`; ``ema`` is the decay of
    averaged weights (0: none); ``precision`` is ``"32"`` or ``"bf16"``. ``fps`` is how many frames a second are taken of every video; None for the
    median of their rates. Training ends after ``epochs``, ``max_steps`` optimizer steps or ``max_minutes``, whichever comes first.
    """

    epochs: int = 100
    batch_size: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "plateau"
    patience: int = 10
    loss: str = "every"
    truncate: int = 1
    accumulate: int = 1
    ema: float = 0.0
    precision: str = "32"
    flip: bool = False
    fps: float | None = None
    validation: float = 0.2
    class_weights: str | None = None
    seed: int = 0
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"
    workers: int = 2
    max_minutes: float | None = None
    max_steps: int | None = None


FREE_TO_CHANGE = ("accelerator", "workers", "max_minutes", "max_steps", "epochs")
"""Options that may differ when a training is resumed: they do not change what is computed, or change only how long the training goes on."""


def _sgd(network: nn.Module, c: TrainingConfig) -> Optimizer:
    from torch.optim import SGD

    return SGD(network.parameters(), c.learning_rate, c.momentum, weight_decay=c.weight_decay)


def _adamw(network: nn.Module, c: TrainingConfig) -> Optimizer:
    from torch.optim import AdamW

    return AdamW(network.parameters(), c.learning_rate, weight_decay=c.weight_decay)


def _plateau(optimizer: Optimizer, c: TrainingConfig) -> Any:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return ReduceLROnPlateau(optimizer, factor=0.1, patience=c.patience)


def _cosine(optimizer: Optimizer, c: TrainingConfig) -> Any:
    from torch.optim.lr_scheduler import CosineAnnealingLR

    return CosineAnnealingLR(optimizer, c.epochs)


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainingConfig], Optimizer]] = {"sgd": _sgd, "adamw": _adamw}
SCHEDULES: dict[str, Callable[[Optimizer, TrainingConfig], Any]] = {"plateau": _plateau, "cosine": _cosine}

PRECISIONS = ("32", "bf16")
CLASS_WEIGHTS = ("balanced",)
