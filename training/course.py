"""How a training went, epoch by epoch: what is printed, logged and kept in its checkpoint."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from clipstep.training.trainer import EpochFacts


@dataclass
class Course:
    """One row an epoch, the weights of the best one, and the minutes spent."""

    epochs: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    """Of the best epoch: validation top-1 and minus validation loss."""
    minutes: float = 0.0

    @property
    def finished(self) -> bool:
        """All epochs were done, the last one too to its end."""
        return len(self.rows) == self.epochs and self.rows[-1]["whole"]

    def add(self, facts: EpochFacts, rate: float, validated: tuple[float, float] | None, network: nn.Module) -> float:
        """Adds an epoch, and its network if that is the best; gives the loss that tells.

        The best has the highest validation top-1 and, of those, the lowest validation loss, which is also the loss that
        tells. Without validation that is the training loss, and the latest network counts as the best.
        """
        loss, top1 = validated or (None, None)
        score = [] if validated is None else [validated[1], -validated[0]]
        self.rows.append(
            {
                "epoch": len(self.rows) + 1,
                "whole": facts.whole,
                "loss": facts.loss,
                "validation_loss": loss,
                "validation_top1": top1,
                "learning_rate": rate,
                "seconds": round(facts.seconds, 2),
                "waited_share": round(facts.waited, 4),
            }
        )
        if validated is None or not self.best or score > self.best_score:
            self.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            self.best_epoch, self.best_score = len(self.rows), score
        return facts.loss if loss is None else loss

    def csv(self) -> str:
        """All rows under a line of names."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def line(self, planned: int) -> str:
        """The last epoch in one line, of so many ``planned``."""
        row: Mapping[str, Any] = self.rows[-1]
        validation = ""
        if row["validation_loss"] is not None:
            best = " (best)" if self.best_epoch == row["epoch"] else ""
            validation = f"  validation {row['validation_loss']:.4f}, top-1 {row['validation_top1']:.1%}{best}"
        return (
            f"epoch {row['epoch']}/{planned}  loss {row['loss']:.4f}{validation}  rate {row['learning_rate']:g}"
            f"  {row['seconds']:.0f} s ({row['waited_share']:.1%} waiting for data)"
        )
