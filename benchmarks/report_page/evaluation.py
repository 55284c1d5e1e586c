"""The evaluation that ``clipstep evaluate --out`` wrote: the part of its ``summary.json`` that the page shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipstep.runtime.bundle.artifacts import Count, Share
from clipstep.runtime.bundle.interface import Positive
from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.path_checks import check_file

SUMMARY = "summary.json"


class _Class(BaseModel):
    model_config = ConfigDict(frozen=True)
    videos: Count
    accuracy: Share | None


class Evaluation(BaseModel):
    """An evaluation on the videos of a test list."""

    model_config = ConfigDict(frozen=True)
    what: tuple[str, ...]
    """What was evaluated, and in which engine; two where their probabilities were averaged."""
    crops: Positive
    warnings: tuple[str, ...]
    videos: Positive
    skipped_videos: dict[str, str]
    largest_class_share: Share
    top1: Share
    top5: Share | None
    per_class: dict[str, _Class]
    seen: dict[Annotated[str, Field(pattern=r"^[01]\.\d+$")], Share | None]
    """Top-1 by the share of each video that was seen."""
    confusion: tuple[tuple[Count, ...], ...]
    """How many videos of the row's class were predicted as the column's class."""

    @classmethod
    def read(cls, folder: Path, labels: Sequence[str]) -> "Evaluation":
        """Read the evaluation in a folder.

        Raises:
            ClipstepError: there is none; it is malformed, or of other classes than `labels`.
        """
        path = folder / SUMMARY
        check_file(path, "the folder of an evaluation", fix="give the folder that clipstep evaluate --out wrote")
        try:
            evaluation = cls.model_validate_json(path.read_bytes())
        except (ValidationError, ValueError) as error:
            raise ClipstepError(f"{path}: is not an evaluation", got=error_summary(error), fix="evaluate again") from error
        if tuple(evaluation.per_class) != tuple(labels):
            raise ClipstepError(
                f"{path}: is of other classes than the bundle",
                got=", ".join(evaluation.per_class),
                expected=", ".join(labels),
                fix="give the evaluation of this bundle",
            )
        if len(evaluation.confusion) != len(labels) or any(len(row) != len(labels) for row in evaluation.confusion):
            raise ClipstepError(f"{path}: its confusion matrix is malformed", expected=f"{len(labels)} x {len(labels)} numbers", fix="evaluate again")
        return evaluation

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return which class was taken for which other one, and how often, the most frequent first."""
        names = list(self.per_class)
        found = [(names[i], names[j], n) for i, row in enumerate(self.confusion) for j, n in enumerate(row) if n and i != j]
        return sorted(found, key=lambda item: -item[2])
