"""Data sets in UCF101's layout: a class list, a list of training clips, a list of test clips, a folder of videos.

``classInd.txt`` holds ``1 ClassName`` lines, ``trainlist0N.txt`` ``ClassName/v_ClassName_gNN_cNN.mp4 1`` lines and
``testlist0N.txt`` the same without the number. Source: Soomro, Zamir and Shah, "UCF101" (2012).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipstep.runtime.errors import ClipstepError


@dataclass(frozen=True)
class Clip:
    """One video of a list: its file and its class, counted from 0."""

    path: Path
    label: int


@dataclass(frozen=True)
class DataSet:
    """A data set in UCF101's layout: class names in order, training and test clips of one split."""

    classes: tuple[str, ...]
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]


def read_data_set(folder: Path, split: int = 1) -> DataSet:
    """The data set in ``folder``, which holds the lists and ``videos/``.

    Raises:
        ClipstepError: a list is missing, empty or malformed, names a class that ``classInd.txt`` lacks, gives a label
            that is not its class's, names a video that is not there, or has no training clip of a class.
    """
    classes = _read_classes(folder / "classInd.txt")
    train, test = folder / f"trainlist{split:02d}.txt", folder / f"testlist{split:02d}.txt"
    data = DataSet(
        classes,
        _read_clips(train, folder / "videos", classes, labelled=True),
        _read_clips(test, folder / "videos", classes, labelled=False),
    )
    untrained = [name for label, name in enumerate(classes) if label not in {clip.label for clip in data.train}]
    if untrained:
        raise ClipstepError(f"{train}: has no clip of {', '.join(untrained)}", expected="clips of every class", fix="correct the list")
    return data


def split_by_group(clips: Sequence[Clip], share: float, seed: int) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Clips to train on and to validate on, about ``share`` of each class's groups for the latter; the seed decides which.

    A group is all clips that were cut from one source video (``v_Class_gNN_cNN``): it is never on both sides. A class of
    one group is trained on. Source: the paper's 80:20, done by group as UCF101's own lists are.

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
    """The source video that a clip was cut from, ``g07`` of ``v_Fight_g07_c02.mp4``.

    Raises:
        ClipstepError: the name is not of that form.
    """
    match = re.search(r"_(g\d+)_c\d+$", clip.path.stem)
    if not match:
        raise ClipstepError(f"{clip.path}: does not tell its group", expected="v_ClassName_gNN_cNN", fix="rename it, or train with --validation 0")
    return match[1]


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    if not path.is_file():
        raise ClipstepError(f"{path}: no such file", expected="a list in UCF101's layout", fix="check the data folder and --split")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ClipstepError(f"{path}: is not text", expected="a list in UCF101's layout") from error
    lines = [(f"{path}:{number}", line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ClipstepError(f"{path}: the list is empty", expected="at least one line", fix="fill the list")
    return lines


def _read_classes(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for where, words in _lines(path):
        if len(words) != 2 or words[0] != str(len(names) + 1):
            raise ClipstepError(f"{where}: malformed class", got=" ".join(words), expected=f"'{len(names) + 1} ClassName'")
        if words[1] in names:
            raise ClipstepError(f"{where}: the class is named twice", got=words[1], expected="every class once", fix="correct the list")
        names.append(words[1])
    return tuple(names)


def _read_clips(path: Path, videos: Path, classes: tuple[str, ...], *, labelled: bool) -> tuple[Clip, ...]:
    label_of = {name: label for label, name in enumerate(classes)}
    clips: list[Clip] = []
    for where, words in _lines(path):
        name = Path(words[0]).parent.name
        if name not in label_of:
            raise ClipstepError(f"{where}: unknown class", got=name or words[0], expected=f"one of {', '.join(classes)}")
        expected = [words[0], str(label_of[name] + 1)]
        if words != (expected if labelled else words[:1]):
            raise ClipstepError(f"{where}: wrong label", got=" ".join(words), expected=" ".join(expected[: 1 + labelled]))
        clips.append(Clip(videos / words[0], label_of[name]))
    missing = [str(clip.path) for clip in clips if not clip.path.is_file()]
    if missing:
        raise ClipstepError(f"{path}: names {len(missing)} missing videos, the first {missing[0]}", fix="correct the list or restore the videos")
    return tuple(clips)
