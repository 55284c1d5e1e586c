"""Lines of lists of videos: ``file label`` separated by white space, and comma-separated values."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.network.text_files import QUOTES, read_lines, unquoted
from clipstep.runtime.errors import ClipstepError
from clipstep.training.data.layouts.files import VIDEO_SUFFIXES

SPACED = re.compile(rf"""(?:.*(?:{"|".join(map(re.escape, VIDEO_SUFFIXES))})["']?)\s+[^\s,;]+""", re.IGNORECASE)
"""A line whose file is separated from its label by white space."""
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Line:
    """A line of a list, in cells; its number is counted from 1."""

    number: int
    text: str
    cells: tuple[str, ...]


def file_and_label(line: str) -> tuple[str, str]:
    """Return the file in a line, with forward slashes and without quotes, and the label after it; file names may contain spaces."""
    if line[0] in QUOTES and (end := line.find(line[0], 1)) > 0:
        file, label = line[1:end], line[end + 1 :].strip()
    else:
        before, _, last = line.replace("\t", " ").rpartition(" ")
        # Only a word without a dot can be a label: "v_jump 2.avi" is one name.
        file, label = (before.strip(), last) if before and "." not in last else (line, "")
    return forward(file), label


def forward(file: str) -> str:
    """Return the name of a file with forward slashes."""
    return file if "/" in file else file.replace("\\", "/")


def first_line(path: Path) -> str:
    """Return the first line of a file that is not blank, for a look at what it is."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return next((line.strip() for line in file if line.strip()), "")


def read_cells(path: Path, *, expected: str) -> list[Line]:
    """Return the lines of a list in cells, without the quotes around them.

    The first line tells what separates the cells of all of them: white space after the name of a video file, or else a comma, a semicolon or a tab.

    Raises:
        ClipstepError: the file cannot be read, is not UTF-8 text, or is empty; a line is malformed, in which case its number is named.
    """
    lines = read_lines(path, expected=expected)
    number, first = lines[0]
    if SPACED.fullmatch(first):
        return [Line(number, line, file_and_label(line)) for number, line in lines]
    delimiter = next((sign for sign in DELIMITERS if sign in first), None)
    if delimiter is None:
        raise malformed(path, Line(number, first, ()), expected)
    return [Line(number, line, _cells(path, number, line, delimiter, expected)) for number, line in lines]


def _cells(path: Path, number: int, line: str, delimiter: str, expected: str) -> tuple[str, ...]:
    tight = re.sub(rf'"\s+(?={delimiter})', '"', line)  # The csv module takes a space before quotes, but none behind them.
    try:
        (cells,) = csv.reader([tight], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise ClipstepError(f"{path}:{number}: malformed quotes", got=line, expected=expected) from error
    return tuple(unquoted(cell.strip()) for cell in cells)


def malformed(path: Path, line: Line, expected: object) -> ClipstepError:
    """Return the error for a line that is not as expected."""
    return ClipstepError(f"{path}:{line.number}: malformed line", got=line.text, expected=expected)


def seconds(path: Path, line: Line, start: str, end: str) -> tuple[float, float] | None:
    """Return the part of a video that two cells name in seconds; empty cells mean its start and its end, and two of them the whole video.

    Raises:
        ClipstepError: they are no seconds, or the end is not after the start.
    """
    if not start and not end:
        return None
    try:
        cut = (float(start or 0), float(end or "inf"))
    except ValueError as error:
        raise malformed(path, line, "the start and the end in seconds, such as 3.5") from error
    if not 0 <= cut[0] < cut[1] or (end and math.isinf(cut[1])):
        raise malformed(path, line, "a start of at least 0 seconds, and an end after it")
    return cut


def columns(cells: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return at which places a header has the columns, which may have any of several names each."""
    lower = [cell.lower() for cell in cells]
    return {column: lower.index(name) for column, every in names.items() for name in every[::-1] if name in lower}
