"""UCF101's layout: a list of classes, lists of training and test clips, and a folder of videos.

``classInd.txt`` holds ``1 ClassName`` lines, ``trainlist0N.txt`` ``ClassName/v_ClassName_gNN_cNN.mp4 1`` lines and
``testlist0N.txt`` the same without the number. Names may hold spaces, be quoted, or be written with backslashes.
Source: Soomro, Zamir and Shah, "UCF101" (2012).
"""

import re
from pathlib import Path

from clipstep.network.text_files import read_lines, unquoted
from clipstep.runtime.errors import ClipstepError
from clipstep.training.data.layouts.files import check_there, list_files, on_disk
from clipstep.training.data.layouts.lines import file_and_label
from clipstep.training.data.lists import Clip, DataSet

EXPECTED = "a list in UCF101's layout"
CHECK = "check the data folder and --split"
NAME = re.compile(r"classInd\.txt|(?:train|test)list\d+\.txt")
VIDEOS = ("videos", "UCF-101", "")
"""Where the videos lie: in the first of these folders that holds the file; the empty one is the data folder."""


def find(folder: Path) -> list[Path]:
    """Return the lists of this layout in the data folder."""
    return [file for file in list_files(folder) if NAME.fullmatch(file.name)]


def read(folder: Path, split: int) -> DataSet:
    """Read the lists of a split.

    Raises:
        ClipstepError: a list is missing, empty or malformed, or names an unknown class, a wrong label or a video that does not exist.
    """
    place = next((file.parent for file in find(folder)), folder)
    labels = _read_classes(place / "classInd.txt")
    train, test = place / f"trainlist{split:02d}.txt", place / f"testlist{split:02d}.txt"
    return DataSet(
        labels,
        _read_clips(train, folder, labels, labelled=True),
        _read_clips(test, folder, labels, labelled=False),
        layout="ucf101",
        train_list=str(train.relative_to(folder)),
        test_list=test.stem,
    )


def _read_classes(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for number, line in read_lines(path, expected=EXPECTED, fix=CHECK):
        index, _, name = line.replace("\t", " ").partition(" ")
        name = unquoted(name.strip())
        if index != str(len(names) + 1) or not name:
            raise ClipstepError(f"{path}:{number}: malformed class", got=line, expected=f"'{len(names) + 1} ClassName'")
        if name in names:
            raise ClipstepError(f"{path}:{number}: the class is named twice", got=name, expected="every class once", fix="correct the list")
        names.append(name)
    return tuple(names)


def _read_clips(path: Path, folder: Path, labels: tuple[str, ...], *, labelled: bool) -> tuple[Clip, ...]:
    label_of = {name: label for label, name in enumerate(labels)}
    clips: list[Clip] = []
    for number, line in read_lines(path, expected=EXPECTED, fix=CHECK):
        file, label = file_and_label(line)
        name = Path(file).parent.name
        if name not in label_of:
            raise ClipstepError(f"{path}:{number}: unknown class", got=name or line, expected=f"one of {', '.join(labels)}")
        expected = str(label_of[name] + 1) if labelled else ""
        if label != expected:
            raise ClipstepError(f"{path}:{number}: wrong label", got=line, expected=f"{file} {expected}".strip())
        clips.append(Clip(on_disk(folder, VIDEOS, file), label_of[name]))
    check_there(path, (clip.path for clip in clips))
    return tuple(clips)
