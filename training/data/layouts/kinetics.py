"""Kinetics' own CSV files: ``label,youtube_id,time_start,time_end,split``.

A video is called ``YOUTUBEID_000010_000020.mp4``, as the usual tools call the seconds that they cut out, or ``YOUTUBEID.mp4``, which is then cut. It
may lie anywhere in the data folder. Missing videos are left out, because many are no longer online. Source: Kay et al., "The Kinetics
Human Action Video Dataset" (2017).
"""

from collections.abc import Iterator
from pathlib import Path

from clipstep.runtime.errors import ClipstepError
from clipstep.training.data.layouts.files import TRAIN, VideoIndex, list_files, lists_of_split
from clipstep.training.data.layouts.lines import columns, first_line, malformed, read_cells, seconds
from clipstep.training.data.layouts.rows import Row, Rows, data_set
from clipstep.training.data.lists import DataSet

EXPECTED = "label,youtube_id,time_start,time_end,split"
COLUMNS = {name: (name,) for name in ("label", "youtube_id", "time_start", "time_end")}


def is_list(file: Path) -> bool:
    """Whether a CSV file is one of Kinetics'."""
    return "youtube_id" in first_line(file)


def find(folder: Path) -> list[Path]:
    """Return the lists of this layout in the data folder."""
    return [file for file in list_files(folder) if file.suffix.lower() == ".csv" and is_list(file)]


def read(folder: Path, split: int) -> DataSet:
    """Read the lists.

    Raises:
        ClipstepError: a line is malformed, none of a list's videos is there, or several have the same name.
    """
    lists, index, warnings = lists_of_split(folder, find(folder), split), VideoIndex(folder), []
    if TRAIN not in lists:
        raise ClipstepError(f"{folder}: has no list to train on", got=", ".join(file.name for file in find(folder)), expected="train.csv and val.csv")
    roles = {}
    for role, file in lists.items():
        rows = list(_rows(file, index))
        found = [row for _, row in rows if row is not None]
        missing = [name for name, row in rows if row is None]
        if not found:
            raise ClipstepError(
                f"{file}: none of its videos is in {folder}", expected=f"{missing[0]}.mp4 and others", fix="put the videos into the data folder"
            )
        if missing:
            warnings.append(f"left out, because missing: {len(missing)} of the {len(rows)} videos of {file.name}, the first {missing[0]}.mp4")
        roles[role] = Rows(str(file.relative_to(folder)), found)
    return data_set(folder, "kinetics", roles, split, chosen=True, warnings=warnings)


def _rows(file: Path, index: VideoIndex) -> Iterator[tuple[str, Row | None]]:
    """Yield the name of each video, and its row if it is there."""
    header, *lines = read_cells(file, expected=EXPECTED)
    place = columns(header.cells, COLUMNS)
    if missing := COLUMNS.keys() - place.keys():
        raise malformed(file, header, f"{EXPECTED}; {min(missing)} is missing")
    for line in lines:
        if len(line.cells) != len(header.cells):
            raise malformed(file, line, f"{len(header.cells)} columns")
        label, name, start, end = (line.cells[place[column]] for column in COLUMNS)
        cut = seconds(file, line, start, end)
        if not label or not name or cut is None or not end:
            raise malformed(file, line, EXPECTED)
        trimmed = f"{name}_{int(cut[0]):06d}_{int(cut[1]):06d}"
        if path := index.find(trimmed):
            yield trimmed, Row(path, label, None, name)
        else:
            whole = index.find(name)
            yield trimmed, Row(whole, label, cut, name) if whole else None
