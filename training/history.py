"""The history of a training, epoch by epoch: what is printed, logged, and saved in the checkpoint."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from clipstep.training.trainer import EpochResult


@dataclass
class History:
    """One row for each epoch, the weights of the best epoch, and the minutes spent."""

    epochs: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    """Validation top-1 and negative validation loss of the best epoch."""
    minutes: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether all epochs were done, the last one to its end."""
        return len(self.rows) == self.epochs and self.rows[-1]["complete"]

    def add(self, result: EpochResult, rate: float, validated: tuple[float, float] | None, network: nn.Module) -> float:
        """Add an epoch, keep its network if it is the best so far, and return the loss that the learning rate schedule watches.

        The best epoch has the highest validation top-1 and, among equals, the lowest validation loss. ``validated`` is validation loss and top-1.
        The schedule watches the validation loss. Without validation it watches the training loss, and the latest network counts as the best.
        """
        loss, top1 = validated or (None, None)
        score = [] if validated is None else [validated[1], -validated[0]]
        self.rows.append(
            {
                "epoch": len(self.rows) + 1,
                "complete": result.complete,
                "loss": result.loss,
                "validation_loss": loss,
                "validation_top1": top1,
                "learning_rate": rate,
                "seconds": round(result.seconds, 2),
                "waiting_share": round(result.waiting_share, 4),
            }
        )
        if validated is None or not self.best or score > self.best_score:
            self.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            self.best_epoch, self.best_score = len(self.rows), score
        return result.loss if loss is None else loss

    def csv(self) -> str:
        """Return all rows as CSV, with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def line(self, planned: int) -> str:
        """Return a line that describes the last epoch, out of ``planned`` epochs."""
        row: Mapping[str, Any] = self.rows[-1]
        validation = ""
        if row["validation_loss"] is not None:
            best = " (best)" if self.best_epoch == row["epoch"] else ""
            validation = f"  validation {row['validation_loss']:.4f}, top-1 {row['validation_top1']:.1%}{best}"
        return (
            f"epoch {row['epoch']}/{planned}  loss {row['loss']:.4f}{validation}  rate {row['learning_rate']:g}"
            f"  {row['seconds']:.0f} s ({row['waiting_share']:.1%} waiting for data)"
        )
