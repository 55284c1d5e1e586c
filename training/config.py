"""How to train: everything that decides what a training computes, and how it is spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The command line's help reads this file, and must not load PyTorch.
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. ``batch_size`` counts videos of one process and one pass; see ``clipstep train --help`` for the rest.

    ``validation`` is the share of each class's groups that is held out of training, to choose the best epoch by;
    ``loss`` is ``"every"`` or ``"last"`` subclip, back-propagated through ``truncate`` subclips; a step of the optimizer
    takes ``accumulate`` batches; ``ema`` is the decay of the averaged weights (0: none); ``precision`` is ``"32"`` or
    ``"bf16"``. Training ends after ``epochs``, ``max_steps`` steps of the optimizer or ``max_minutes``, whichever comes first.
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
    validation: float = 0.2
    seed: int = 0
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"
    workers: int = 2
    max_minutes: float | None = None
    max_steps: int | None = None


FREE_TO_CHANGE = ("accelerator", "workers", "max_minutes", "max_steps", "epochs")
"""What a resumed training may have otherwise: it does not decide what is computed, or, as the number of epochs, how much of it."""


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
