"""Whether something can be written to a place, asked before the work rather than after it."""

import os
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


def check_file_place(path: Path) -> None:
    """Checks that a file can be written there, or appended to; its folder must exist.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    if path.is_dir():
        raise ClipstepError(f"{path}: is a folder", expected="the name of a file to write")
    if path.exists():
        _check_writable(path)
    elif not path.parent.exists():
        raise ClipstepError(f"{path.parent}: no such folder", fix="make it first")
    else:
        _check_folder(path.parent)


def check_folder_place(path: Path) -> None:
    """Checks that a folder can be written there; those above it are made if they are missing.

    Raises:
        ClipstepError: it cannot.
    """
    check_name(path)
    if path.exists() and not path.is_dir():
        raise ClipstepError(f"{path}: is a file", expected="the name of a folder to write")
    _check_folder(next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink()))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ClipstepError(f"{folder}: is no folder", expected="a folder to write to", fix="choose another place")
    _check_writable(folder)


def _check_writable(path: Path) -> None:
    read_only = hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY
    if read_only or not os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0)):
        got = "a read-only file system" if read_only else "no permission"
        raise ClipstepError(f"{path}: cannot be written to", got=got, fix="choose another place")
