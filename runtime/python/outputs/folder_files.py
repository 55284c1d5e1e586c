"""The predictions for all videos of a folder in one table or in one file of JSON lines."""

import csv
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.outputs.csv_table import COLUMNS, row_of
from clipstep.runtime.outputs.json_lines import values_of
from clipstep.runtime.outputs.output import Source, VideoPrediction


class FolderFiles:
    """What is written for one video, with the video's path in front of each row or object."""

    def __init__(self, stack: ExitStack, files: Sequence[tuple[Path, str]], source: Source) -> None:
        """`files`: each with its format, `.csv` or `.jsonl`; they are moved to their places when `stack` is closed without an error."""
        self._top = source.top
        self._tables, self._lines = [], []
        for path, kind in files:
            file = _opened(stack, path)
            if kind == ".csv":
                self._tables.append(csv.writer(file))
                self._tables[-1].writerow(["video", *COLUMNS, *source.labels])
            else:
                self._lines.append(file)

    def add(self, video: Path, predictions: Sequence[VideoPrediction]) -> None:
        """Write the predictions for a video."""
        for said in predictions:
            for rows in self._tables:
                rows.writerow([video, *row_of(said)])
            for file in self._lines:
                file.write(json.dumps(values_with_video(video, said, self._top), ensure_ascii=False) + "\n")


def values_with_video(video: Path, said: VideoPrediction, top: int) -> dict[str, object]:
    """Return a prediction as JSON has it, with the path of its video."""
    return {"video": str(video), **values_of(said, top)}


def _opened(files: ExitStack, path: Path) -> Any:
    new = files.enter_context(atomic_file(path))
    return files.enter_context(new.open("w", encoding="utf-8", errors="surrogateescape", newline=""))
