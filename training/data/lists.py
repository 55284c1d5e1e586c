"""Data sets in UCF101's layout: a class list, a list of training clips, a list of test clips, a folder of videos.

``classInd.txt`` holds ``1 ClassName`` lines, ``trainlist0N.txt`` ``ClassName/v_ClassName_gNN_cNN.mp4 1`` lines and
``testlist0N.txt`` the same without the number. Source: Soomro, Zamir and Shah, "UCF101" (2012).
"""

from dataclasses import dataclass
from pathlib import Path

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
            that is not its class's, or names a video that is not there.
    """
    classes = _read_classes(folder / "classInd.txt")
    return DataSet(
        classes,
        _read_clips(folder / f"trainlist{split:02d}.txt", folder / "videos", classes, labelled=True),
        _read_clips(folder / f"testlist{split:02d}.txt", folder / "videos", classes, labelled=False),
    )


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
