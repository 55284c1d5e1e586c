"""The videos of a folder."""

import os
from pathlib import Path

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError, open_video

SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
"""A file with such a name is meant to be a video: if it cannot be read, that is an error."""


def videos_in(folder: Path) -> list[Path]:
    """Return the videos in a folder and the folders below it, sorted by their paths.

    A file is a video if its suffix is one of `SUFFIXES`, or if FFmpeg finds a video stream in it, whatever it is called. Hidden files and folders,
    and links to folders, are left out.

    Raises:
        ClipstepError: a folder cannot be read, or there is no video.
    """
    found = []
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in names if not name.startswith(".") and _is_video(path := Path(place, name))]
    if not found:
        raise ClipstepError(f"{folder}: has no video in it", expected="a folder of videos, or of folders of them", fix="check the path")
    return sorted(found)


def _is_video(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_video(path):
            return True
    except VideoError:
        return False


def _raise(error: OSError) -> None:
    raise ClipstepError(f"{error.filename}: cannot be read", got=error.strerror or error, fix="check its permissions") from error
