"""What the readers of layouts share: which files are lists or videos, which list is for what, and where a listed video lies."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipstep.network.text_files import as_on_disk, nfc
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf", ".ogv", ".3gp", ".gif"),
)
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ROLES = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validate", "validation"),
    TEST: ("test", "testing"),
}
"""What a list or a folder of videos can be for, and the words for it in names of files."""
LIST_FOLDERS = ("", "annotations", "labels", "splits", "ucfTrainTestlist", "testTrainMulti_7030_splits", "test_train_splits")
"""Where lists lie, in the data folder; the empty one is the data folder itself."""


def visible(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted, without hidden files such as those that macOS leaves; nothing if there is no such folder."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.is_dir() else []


def list_files(folder: Path) -> list[Path]:
    """Return the files in the data folder and in the folders in it that usually hold lists."""
    return [file for name in LIST_FOLDERS for file in visible(folder / name) if not is_video(file) and file.is_file()]


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def role_of(word: str) -> str | None:
    """Return what a list or folder of that name is for: train, validation or test; None if the word does not say it."""
    return next((role for role, words in ROLES.items() if word.lower() in words), None)


def roles_of_list(path: Path) -> set[str]:
    """Return what a list is for, by the words in its name: usually one role, or none."""
    return {role for word in re.split(r"[^a-z]+", path.stem.lower()) if (role := role_of(word))}


def lists_of_split(folder: Path, files: Iterable[Path], split: int) -> dict[str, Path]:
    """Return the list for each role, of the split N where names end in a number, as ``train1.csv`` and ``train_split_1_videos.txt`` do.

    Raises:
        ClipstepError: there is no such split, there are two lists for the same thing, or one is for two things by its name.
    """
    by_role: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        roles = sorted(roles_of_list(file))
        if len(roles) > 1:
            raise ClipstepError(f"{file}: its name says two things", got=" and ".join(roles), expected="one of them", fix="rename it")
        for role in roles:
            by_role[role].append(file)
    return {role: _list_of_split(folder, role, candidates, split, by_role.keys() == {TRAIN}) for role, candidates in by_role.items()}


def _list_of_split(folder: Path, role: str, candidates: Sequence[Path], split: int, alone: bool) -> Path:
    """Return the list of a split. A list that is ``alone`` is for all of them, because it will be split at random."""
    numbers = {file: _split_of(file) for file in candidates}
    found = [file for file in candidates if numbers[file] == split]
    if not found and (split == 1 or alone):
        found = [file for file in candidates if numbers[file] is None]
    if not found:
        raise no_split(folder, split, sorted(number or 1 for number in numbers.values()))
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise ClipstepError(f"{folder}: has two lists for {role}", got=names, expected="one", fix="move the other one away")
    return found[0]


def no_split(folder: Path, split: int, numbers: Sequence[int]) -> ClipstepError:
    """Return the error for a split that a data set does not have."""
    return ClipstepError(f"{folder}: has no split {split}", expected=f"--split {' or '.join(map(str, numbers))}")


def _split_of(path: Path) -> int | None:
    match = re.search(r"(?:split|train|training|val|valid|validate|validation|test|testing)[ _-]?(\d+)(?!.*split)", path.stem.lower())
    return int(match[1]) if match else None


def on_disk(folder: Path, bases: Sequence[str], file: str) -> Path:
    """Return where a listed file lies: in the first of the ``bases``, folders in the data folder, that has it; in the first one if none has it.

    An absolute path is taken as it is, and if nothing is there, as one in the data folder.
    """
    places = [as_on_disk(folder / base / file) for base in bases]
    if file.startswith("/"):  # Some lists write paths in the data folder so.
        places.append(as_on_disk(folder / file.lstrip("/")))
    return next((place for place in places if place.is_file()), places[0])


def check_there(path: Path, videos: Iterable[Path]) -> None:
    """Check that the videos that the list ``path`` names are there.

    Raises:
        ClipstepError: some are missing.
    """
    missing = [str(video) for video in videos if not video.is_file()]
    if missing:
        raise ClipstepError(
            f"{path}: names {counted(len(missing), 'missing video')}, the first {missing[0]}", fix="correct the list or restore the videos"
        )


class VideoIndex:
    """All videos in a data folder by their names without suffix, for lists that name videos but not where they lie. Links are followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, list[Path]] = defaultdict(list)
        seen: set[str] = set()
        for place, folders, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(place)
            folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
            for name in [] if real in seen else sorted(names):
                if is_video(path := Path(place, name)) and not name.startswith("."):
                    self._found[nfc(path.stem)].append(path)
            seen.add(real)

    def find(self, name: str, parent: str | None = None) -> Path | None:
        """Return the video with that name (NFC, without suffix), or None. Of several, the one in a folder called ``parent`` is meant.

        Raises:
            ClipstepError: several videos have that name.
        """
        found = self._found.get(name, [])
        if len(found) > 1:
            found = [path for path in found if nfc(path.parent.name) == parent] or found
        if len(found) > 1:
            raise ClipstepError(
                f"{self.folder}: several videos are called {name}",
                got=listed([str(path.relative_to(self.folder)) for path in found]),
                expected="one",
                fix="move the others out of the data folder",
            )
        return found[0] if found else None
