"""Predictions as a table: `--csv`."""

import csv
from collections.abc import Sequence
from pathlib import Path

from clipstep.runtime.outputs.output import Output, Source, VideoPrediction

COLUMNS = ("start_s", "end_s", "frames_seen", "at_end")
"""The columns before those of the classes."""


class CsvTable(Output):
    """A row for each prediction, and a column with its probability for each class, with all digits. The text is UTF-8."""

    def __init__(self, path: Path, source: Source) -> None:
        super().__init__(path, source)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow([*COLUMNS, *source.labels])

    def add(self, said: VideoPrediction) -> None:
        self._rows.writerow(row_of(said))

    def close(self) -> None:
        self._file.close()


def row_of(said: VideoPrediction) -> Sequence[object]:
    """Return a prediction's row of the table, in the order of `COLUMNS` and the labels."""
    times = (round(said.start, 6), round(said.end, 6))
    return [*times, said.prediction.frames_seen, int(said.at_end), *map(float, said.prediction.probabilities)]
