"""Data sets in UCF101's layout: a list of classes, lists of training and test clips, and a folder of videos.

``classInd.txt`` holds ``1 ClassName`` lines, ``trainlist0N.txt`` ``ClassName/v_ClassName_gNN_cNN.mp4 1`` lines and
``testlist0N.txt`` the same without the number. Names may hold spaces, be quoted, or be written with backslashes.
Source: Soomro, Zamir and Shah, "UCF101" (2012).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipstep.network.text_files import QUOTES, as_on_disk, read_lines, unquoted
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted

LAYOUT = "a list in UCF101's layout"
CHECK = "check the data folder and --split"


@dataclass(frozen=True)
class Clip:
    """A video of a list: its file, and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class DataSet:
    """A data set in UCF101's layout: class names in the order of the labels, the clips of one split, and warnings about them."""

    labels: tuple[str, ...]
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]
    warnings: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    """The warnings about data leakage that make a test result wrong, but were allowed."""


def read_data_set(folder: Path, split: int = 1, *, allow_leakage: bool = False) -> DataSet:
    """Read the data set in ``folder``, which holds the lists and ``videos/``.

    Example:
        ```python
        data = read_data_set(Path("UCF101"), split=1)
        print(len(data.labels), len(data.train), len(data.test))
        ```

    Args:
        folder: The folder of the data set.
        split: N of ``trainlist0N.txt`` and ``testlist0N.txt``.
        allow_leakage: Turn leakage between the lists into warnings of the data set.

    Raises:
        ClipstepError: A list is missing, empty or malformed; it names an unknown class, a wrong label or a video that does not exist; a class has
            no training clip; a video is in both lists, under whatever name, or twice in the test list.
    """
    from clipstep.training.data.leakage import find_leaks

    labels = _read_classes(folder / "classInd.txt")
    train, test = folder / f"trainlist{split:02d}.txt", folder / f"testlist{split:02d}.txt"
    data = DataSet(
        labels,
        _read_clips(train, folder / "videos", labels, labelled=True),
        _read_clips(test, folder / "videos", labels, labelled=False),
    )
    untrained = [name for label, name in enumerate(labels) if label not in {clip.label for clip in data.train}]
    if untrained:
        raise ClipstepError(f"{train}: has no clip of {', '.join(untrained)}", expected="clips of every class", fix="correct the list")
    leaks = find_leaks(data.train, data.test)
    if leaks.errors and not allow_leakage:
        raise ClipstepError(
            f"{folder}: data leakage",
            got="; ".join(leaks.errors),
            expected="no video in both lists, or twice in the test list",
            fix="correct the lists, or allow it with --allow-leakage",
        )
    return replace(data, leaks=leaks.errors, warnings=(*leaks.errors, *leaks.warnings))


def split_by_group(clips: Sequence[Clip], share: float, seed: int) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Split clips into those to train on and those to validate on, about ``share`` of each class's groups; the seed decides which.

    A group is all clips that were cut from one source video (``v_Class_gNN_cNN``), so that no source video is on both sides. The only group of a
    class is trained on. Source: the paper's 80:20 split, done by group as in UCF101's own lists.

    Raises:
        ClipstepError: a name does not tell its group, or no class has two groups.
    """
    if share == 0:
        return tuple(clips), ()
    groups: dict[int, set[str]] = {}
    for clip in clips:
        groups.setdefault(clip.label, set()).add(group_of(clip))
    random = np.random.default_rng(seed)
    held: set[tuple[int, str]] = set()
    for label, names in sorted(groups.items()):
        count = min(max(1, round(share * len(names))), len(names) - 1)
        held |= {(label, str(name)) for name in random.permutation(sorted(names))[:count]}
    if not held:
        raise ClipstepError("no class has two groups", expected="videos of several sources", fix="train with --validation 0")
    inside = [(clip.label, group_of(clip)) in held for clip in clips]
    return (
        tuple(clip for clip, out in zip(clips, inside, strict=True) if not out),
        tuple(clip for clip, out in zip(clips, inside, strict=True) if out),
    )


def group_of(clip: Clip) -> str:
    """Return the source video that a clip was cut from: ``g07`` for ``v_Fight_g07_c02.mp4``.

    Raises:
        ClipstepError: the name is not of that form.
    """
    group = find_group(clip)
    if group is None:
        raise ClipstepError(f"{clip.path}: does not tell its group", expected="v_ClassName_gNN_cNN", fix="rename it, or train with --validation 0")
    return group


def find_group(clip: Clip) -> str | None:
    """Return the source video of a clip, as `group_of`, or None if the name does not tell it."""
    match = re.search(r"_(g\d+)_c\d+$", clip.path.stem)
    return match[1] if match else None


def _read_classes(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for number, line in read_lines(path, expected=LAYOUT, fix=CHECK):
        index, _, name = line.replace("\t", " ").partition(" ")
        name = unquoted(name.strip())
        if index != str(len(names) + 1) or not name:
            raise ClipstepError(f"{path}:{number}: malformed class", got=line, expected=f"'{len(names) + 1} ClassName'")
        if name in names:
            raise ClipstepError(f"{path}:{number}: the class is named twice", got=name, expected="every class once", fix="correct the list")
        names.append(name)
    return tuple(names)


def _read_clips(path: Path, videos: Path, labels: tuple[str, ...], *, labelled: bool) -> tuple[Clip, ...]:
    label_of = {name: label for label, name in enumerate(labels)}
    clips: list[Clip] = []
    for number, line in read_lines(path, expected=LAYOUT, fix=CHECK):
        file, label = _file_and_label(line)
        name = Path(file).parent.name
        if name not in label_of:
            raise ClipstepError(f"{path}:{number}: unknown class", got=name or line, expected=f"one of {', '.join(labels)}")
        expected = str(label_of[name] + 1) if labelled else ""
        if label != expected:
            raise ClipstepError(f"{path}:{number}: wrong label", got=line, expected=f"{file} {expected}".strip())
        clips.append(Clip(as_on_disk(videos / file), label_of[name]))
    missing = [str(clip.path) for clip in clips if not clip.path.is_file()]
    if missing:
        raise ClipstepError(
            f"{path}: names {counted(len(missing), 'missing video')}, the first {missing[0]}", fix="correct the list or restore the videos"
        )
    return tuple(clips)


def _file_and_label(line: str) -> tuple[str, str]:
    """Return the file in a line, with forward slashes and without quotes, and the label after it; file names may contain spaces."""
    if line[0] in QUOTES and (end := line.find(line[0], 1)) > 0:
        file, label = line[1:end], line[end + 1 :].strip()
    else:
        before, _, last = line.replace("\t", " ").rpartition(" ")
        # Only a word without a dot can be a label: "v_jump 2.avi" is one name.
        file, label = (before.strip(), last) if before and "." not in last else (line, "")
    if "/" not in file:
        file = file.replace("\\", "/")
    return file, label
