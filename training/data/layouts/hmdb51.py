"""HMDB51's split files: ``ClassName_test_split1.txt`` for each class, with lines ``video.avi 1``; 1 is for training, 2 for the test, 0 for neither.

The videos may lie anywhere in the data folder. Source: Kuehne et al., "HMDB: A Large Video Database for Human Motion Recognition" (2011).
"""

import re
from pathlib import Path

from clipstep.network.text_files import nfc, read_lines
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed
from clipstep.training.data.layouts.files import TEST, TRAIN, VideoIndex, is_video, list_files, no_split
from clipstep.training.data.layouts.lines import file_and_label
from clipstep.training.data.layouts.rows import Row, Rows, data_set
from clipstep.training.data.lists import DataSet

NAME = re.compile(r"(.+)_test_split(\d+)\.txt")
EXPECTED = "'video.avi 1', or 2, or 0"
FOR = {"1": TRAIN, "2": TEST, "0": None}


def find(folder: Path) -> list[Path]:
    """Return the lists of this layout in the data folder."""
    return [file for file in list_files(folder) if NAME.fullmatch(file.name)]


def read(folder: Path, split: int) -> DataSet:
    """Read the lists of a split.

    Raises:
        ClipstepError: there is no such split, or not of every class; a line is malformed; a video does not exist, or is there several times.
    """
    lists = {(nfc(match[1]), int(match[2])): file for file in find(folder) if (match := NAME.fullmatch(file.name))}
    classes = sorted({name for name, _ in lists})
    numbers = sorted({number for _, number in lists})
    if split not in numbers:
        raise no_split(folder, split, numbers)
    if missing := [f"{name}_test_split{split}.txt" for name in classes if (name, split) not in lists]:
        raise ClipstepError(f"{folder}: lists of some classes are missing", got=f"no {listed(missing)}", expected="one for every class")
    index = VideoIndex(folder)
    roles: dict[str, list[Row]] = {TRAIN: [], TEST: []}
    for name in classes:
        for role, row in _rows(lists[name, split], name, index):
            roles[role].append(row)
    source = f"{lists[classes[0], split].parent.relative_to(folder) / f'*_test_split{split}.txt'}"
    return data_set(folder, "hmdb51", {role: Rows(source, rows) for role, rows in roles.items()}, split, chosen=True)


def _rows(file: Path, name: str, index: VideoIndex) -> list[tuple[str, Row]]:
    rows, missing = [], []
    for number, line in read_lines(file, expected=EXPECTED):
        video, use = file_and_label(line)
        if use not in FOR or not is_video(Path(video)):
            raise ClipstepError(f"{file}:{number}: malformed line", got=line, expected=EXPECTED)
        if (role := FOR[use]) is None:
            continue
        path = index.find(Path(video).stem, parent=name)
        if path is None:
            missing.append(video)
        else:
            rows.append((role, Row(path, name, group=_source(path, name))))
    if missing:
        raise ClipstepError(
            f"{file}: names {counted(len(missing), 'missing video')}, the first {missing[0]}", fix="correct the list or restore the videos"
        )
    return rows


def _source(path: Path, name: str) -> str | None:
    """Return the class and the film that a clip is from: ``ClassName/Film`` for ``Film_ClassName_u_nm_np1_fr_med_3.avi``."""
    source = re.fullmatch(rf"(.+)_{re.escape(name)}_[a-z]+_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+", nfc(path.stem))
    return f"{name}/{source[1]}" if source else None
