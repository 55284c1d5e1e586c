"""Check whether a path can be read or written, before the work rather than after it."""

import os
import re
import tempfile
from pathlib import Path

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import without_secrets

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=.)")
"""The beginning of a URL. A `Path` keeps one of its two slashes. A single letter before the colon is a drive."""

CAMERA = "camera:"
"""The beginning of what names a camera where a video's path may stand."""


def check_name(path: Path, error: type[ClipstepError] = ClipstepError) -> None:
    """Check that a file can have that name at all, and raise `error` if not.

    Raises:
        ClipstepError: it contains a NUL, is longer than the file system allows, or is a URL.
    """
    check_no_url(path, error)
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except ValueError as reason:
        raise error(f"{path}: is not a valid file name", got=str(reason)) from reason
    except OSError as reason:
        raise error(f"{path}: is not a valid file name", got=reason.strerror or reason) from reason


def check_no_url(path: Path, error: type[ClipstepError] = ClipstepError) -> None:
    """Check that a path is not a URL, and raise `error` if it is one.

    Raises:
        ClipstepError: the path is a URL, and no file has that name.
    """
    if (start := URL.match(str(path))) and not _is_there(path):
        url = URL.sub(f"{start[1]}:///" if start[1].lower() == "file" else f"{start[1]}://", str(path), count=1)
        raise error(
            f"{without_secrets(url)}: is a URL", expected="a file or folder of this computer", fix="download it, and give the path of the file"
        )


def check_file(path: Path, expected: str, *, fix: str = "check the path", error: type[ClipstepError] = ClipstepError) -> None:
    """Check that there is a regular file. Its content is for its reader to check.

    Args:
        path: the file.
        expected: what file is wanted, for the message.
        fix: what to do if there is none, for the message.
        error: the type of the error.

    Raises:
        ClipstepError: there is nothing, or a folder, a device or the like, or the path is a URL.
    """
    check_name(path, error)
    if path.is_dir():
        raise error(f"{path}: is a folder", expected=expected, fix="name a file")
    if not path.exists():
        raise error(f"{path}: no such file", expected=expected, fix=fix)
    if not path.is_file():
        raise error(f"{path}: is no regular file", got="a device, a pipe or a socket", expected=expected)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_readable(path: Path) -> None:
    """Check that a file or folder, if it exists, can be read. Its content is for its reader to check.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        elif path.is_file():
            with path.open("rb") as file:
                file.read(1)
    except OSError as error:
        raise ClipstepError(f"{path}: cannot be read", got=error.strerror or error, fix="check its permissions") from error


def check_file_writable(path: Path) -> None:
    """Check that a file can be written or appended to; its folder must exist.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    _check_around(path)
    if path.is_dir():
        raise ClipstepError(f"{path}: is a folder", expected="the name of a file to write")
    if path.is_file():
        try:
            path.open("ab").close()
        except OSError as error:
            raise ClipstepError(f"{path}: cannot be written to", got=error.strerror or error, fix="choose another place") from error
    elif not path.exists():
        if not path.parent.exists():
            raise ClipstepError(f"{path}: no such folder", got=path.parent, fix="make it first")
        _check_folder(path, path.parent)


def check_folder_writable(path: Path) -> None:
    """Check that a folder can be written or replaced; its parents need not exist.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    _check_around(path)
    if path.exists() and not path.is_dir():
        raise ClipstepError(f"{path}: is a file", expected="the name of a folder to write")
    _check_folder(path, next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink()))


def _check_around(path: Path) -> None:
    """Refuse to write into a bundle, which holds nothing but what its manifest names."""
    for folder in Path(os.path.realpath(path)).parents:
        if folder.suffix == ".clipstep" and (folder / "manifest.json").is_file():
            raise ClipstepError(f"{path}: lies in a bundle", got=folder, expected="a place outside it", fix="choose another place")


def _check_folder(path: Path, folder: Path) -> None:
    """Create a temporary file in `folder`: permissions alone do not tell what a file system refuses."""
    if not folder.is_dir():
        raise ClipstepError(f"{path}: cannot be written", got=f"{folder} is no folder", fix="choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ClipstepError(f"{path}: cannot be written", got=f"{folder}: {error.strerror}", fix="choose another place") from error
