"""A folder of videos for each class: ``ClassName/video.mp4``, with or without ``train/``, ``val/`` and ``test/`` above."""

from collections.abc import Iterator
from pathlib import Path

from clipstep.network.text_files import nfc
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed
from clipstep.training.data.layouts.files import TRAIN, is_video, role_of, visible
from clipstep.training.data.layouts.rows import Row, Rows, data_set
from clipstep.training.data.lists import DataSet

EXPECTED = "ClassName/video.mp4, or the same in train/, val/ and test/"


def find(folder: Path) -> list[Path]:
    """Return the folders in the data folder that hold videos, or folders of videos."""
    return [entry for entry in visible(folder) if _holds_videos(entry) or any(map(_holds_videos, visible(entry)))]


def read(folder: Path, split: int) -> DataSet:
    """Read the folders; those of a class may be spread over several roles.

    Raises:
        ClipstepError: videos lie elsewhere than in the folder of a class, or folders of classes lie beside those of roles.
    """
    found = find(folder)
    roles = {role: entry for entry in found if (role := role_of(entry.name))}
    beside = [entry.name for entry in found if entry not in roles.values()]
    if roles and beside:
        raise ClipstepError(
            f"{folder}: holds {listed(beside)} beside {listed([entry.name for entry in roles.values()])}",
            expected=EXPECTED,
            fix="move the former away, or into the latter",
        )
    ignored: list[str] = []
    rows = {role: Rows(f"{entry.name}/", list(_rows(entry, ignored))) for role, entry in roles.items()} or {
        TRAIN: Rows("", list(_rows(folder, ignored)))
    }
    warnings = [f"ignored, because their names are not those of videos: {counted(len(ignored), 'file')}, {listed(ignored)}"] if ignored else []
    return data_set(folder, "folders", rows, split, warnings=warnings)


def _rows(root: Path, ignored: list[str]) -> Iterator[Row]:
    if loose := [entry.name for entry in visible(root) if is_video(entry)]:
        raise ClipstepError(f"{root}: holds videos that are in no folder of a class", got=listed(loose), expected=EXPECTED)
    for place in visible(root):
        files = visible(place)
        if nested := [file for file in files if _holds_videos(file)]:
            raise ClipstepError(
                f"{nested[0]}: is a folder of videos in the folder of a class, {place.name}",
                expected=EXPECTED,
                fix=f"move the videos up, or give {place} if these are the classes",
            )
        videos = [file for file in files if is_video(file)]
        yield from (Row(file, nfc(place.name)) for file in videos)
        if videos:
            ignored += [f"{place.name}/{file.name}" for file in files if not is_video(file)]


def _holds_videos(place: Path) -> bool:
    return any(is_video(entry) for entry in visible(place))
