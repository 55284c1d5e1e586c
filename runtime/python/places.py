"""Whether something can be written to a place, asked before the work rather than after it."""

import tempfile
from pathlib import Path

from clipstep.runtime.errors import ClipstepError


def check_name(path: Path) -> None:
    """Checks that a file can have that name at all.

    Raises:
        ClipstepError: it holds a NUL, or is longer than the file system takes.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except ValueError as error:
        raise ClipstepError(f"{path}: is no file name", got=str(error)) from error
    except OSError as error:
        raise ClipstepError(f"{path}: is no file name", got=error.strerror) from error


def check_readable(path: Path) -> None:
    """Checks that a file or folder, if it is there, can be read; what it must hold is its reader's business.

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
        raise ClipstepError(f"{path}: cannot be read", got=error.strerror, fix="check its permissions") from error


def check_file_place(path: Path) -> None:
    """Checks that a file can be written there, or appended to; its folder must exist.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    if path.is_dir():
        raise ClipstepError(f"{path}: is a folder", expected="the name of a file to write")
    if path.is_file():
        try:
            path.open("ab").close()
        except OSError as error:
            raise ClipstepError(f"{path}: cannot be written to", got=error.strerror, fix="choose another place") from error
    elif not path.exists():
        if not path.parent.exists():
            raise ClipstepError(f"{path}: no such folder", got=path.parent, fix="make it first")
        _check_folder(path, path.parent)


def check_folder_place(path: Path) -> None:
    """Checks that a folder can be written there, or replaced; those above it are made if they are missing.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    if path.exists() and not path.is_dir():
        raise ClipstepError(f"{path}: is a file", expected="the name of a folder to write")
    _check_folder(path, next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink()))


def _check_folder(path: Path, folder: Path) -> None:
    """Makes a file in ``folder`` that is gone at once: permissions alone do not say what file systems refuse."""
    if not folder.is_dir():
        raise ClipstepError(f"{path}: cannot be written", got=f"{folder} is no folder", fix="choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ClipstepError(f"{path}: cannot be written", got=f"{folder}: {error.strerror}", fix="choose another place") from error
