"""Lists of ``path,label`` or ``path,label,start,end``, with or without a header, or of ``path label`` as MMAction2 and PySlowFast write them.

``train.csv``, ``val.csv`` and ``test.csv``, or one file, with or without a column ``split``. Labels are names, or numbers, whose names are the lines
of ``classes.txt`` if there is one.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from clipstep.network.text_files import read_lines, unquoted
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed
from clipstep.training.data.layouts import hmdb51, kinetics, ucf101
from clipstep.training.data.layouts.files import TRAIN, check_there, is_video, list_files, lists_of_split, on_disk, role_of, roles_of_list
from clipstep.training.data.layouts.lines import Line, columns, forward, malformed, read_cells, seconds
from clipstep.training.data.layouts.rows import Row, Rows, data_set
from clipstep.training.data.lists import DataSet

EXPECTED = "'path,label', 'path,label,start,end' or 'path label' with the name of a video, or a header that calls these columns so"
COLUMNS = {
    "path": ("path", "video_path", "clip_path", "file_path", "filepath", "filename", "file_name", "file", "video", "video_name", "clip"),
    "label": ("label", "class", "class_name", "category", "action", "tag"),
    "start": ("start", "start_time", "time_start", "start_sec", "start_seconds"),
    "end": ("end", "end_time", "time_end", "stop", "end_sec", "end_seconds"),
    "split": ("split", "subset", "set"),
}
"""The names that a column may have in a header. Other columns are not read."""
CLASSES = re.compile(r"(?:classes|class_names|labels|label_map\w*)\.txt", re.IGNORECASE)


def find(folder: Path) -> list[Path]:
    """Return the lists of this layout: CSV files, and text files whose names say what they are for."""
    return [
        file
        for file in list_files(folder)
        if (file.suffix.lower() == ".csv" and not kinetics.is_list(file))
        or (file.suffix.lower() == ".txt" and not ucf101.NAME.fullmatch(file.name) and not hmdb51.NAME.fullmatch(file.name) and roles_of_list(file))
    ]


def read(folder: Path, split: int) -> DataSet:
    """Read the lists.

    Raises:
        ClipstepError: it is not clear which lists are meant, a line is malformed or names an unknown class, or a video does not exist.
    """
    files = find(folder)
    lists = lists_of_split(folder, files, split)
    if not lists and len(files) > 1:
        raise ClipstepError(
            f"{folder}: the names of several lists do not say what they are for",
            got=listed([file.name for file in files]),
            expected="train.csv and val.csv or test.csv, or one list",
        )
    labels = _class_names(folder)
    roles: dict[str, list[Row]] = defaultdict(list)
    for file in lists.values() if lists else files:
        for role, row in _rows(folder, file, next(iter(roles_of_list(file)), None), labels):
            roles[role].append(row)
    source = {role: str(lists.get(role, files[0]).relative_to(folder)) for role in roles}
    return data_set(folder, "csv", {role: Rows(source[role], rows) for role, rows in roles.items()}, split, labels=labels, chosen=bool(lists))


def _class_names(folder: Path) -> tuple[str, ...]:
    files = [file for file in list_files(folder) if CLASSES.fullmatch(file.name)]
    if len(files) > 1:
        raise ClipstepError(f"{folder}: has several lists of classes", got=listed([file.name for file in files]), expected="one")
    names = [unquoted(line) for file in files for _, line in read_lines(file, expected="a class name on each line")]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ClipstepError(f"{files[0]}: names classes twice", got=listed(twice), expected="every class once")
    return tuple(names)


def _rows(folder: Path, file: Path, role: str | None, labels: Sequence[str]) -> list[tuple[str, Row]]:
    lines = read_cells(file, expected=EXPECTED)
    header = columns(lines[0].cells, COLUMNS)
    if "path" in header and "label" in header:
        width, lines = len(lines[0].cells), lines[1:]
    else:
        header, width = {"path": 0, "label": 1, "start": 2, "end": 3}, None
    rows = []
    for line in lines:
        if len(line.cells) != width if width else len(line.cells) not in (2, 4):
            raise malformed(file, line, f"{width} columns" if width else EXPECTED)
        cell = {column: line.cells[place] for column, place in header.items() if place < len(line.cells)}
        if not is_video(Path(cell["path"])) or not cell["label"]:
            raise malformed(file, line, EXPECTED)
        own_role = role or (role_of(cell["split"]) if "split" in cell else TRAIN)
        if own_role is None:
            raise malformed(file, line, "train, val or test as split")
        path = on_disk(folder, ("", "videos", f"videos_{own_role}", own_role, *BASES[own_role]), forward(cell["path"]))
        cut = seconds(file, line, cell.get("start", ""), cell.get("end", ""))
        rows.append((own_role, Row(path, _label(file, line, cell["label"], labels), cut)))
    check_there(file, (row.path for _, row in rows))
    return rows


BASES = {"train": (), "validation": ("videos_val", "val"), "test": ("videos_test",)}
"""Where else MMAction2 puts the videos of a list."""


def _label(file: Path, line: Line, label: str, labels: Sequence[str]) -> str:
    """Return the name of a class: number N is the one on line N + 1 of the list of classes."""
    if not labels or label in labels:
        return label
    if label.isdecimal() and int(label) < len(labels):
        return labels[int(label)]
    raise ClipstepError(
        f"{file}:{line.number}: unknown class", got=label, expected=f"one of {listed(labels)}, or a number from 0 to {len(labels) - 1}"
    )
