"""Folders and files that are written whole or not at all: whenever a writer is killed, the old one or the new one is there.

What is new is made beside its place, on the same disk, and put there by one operation of the system. Where the system can exchange
two folders (Linux, macOS) there is no moment without one of them; where it cannot, the old folder is called ``.NAME.old`` for the
time between two renames, and ``recover`` gives it its name back.
"""

import ctypes
import glob
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.lock import BeingWrittenError, beside, one_writer

ABANDONED_SECONDS = 24 * 3600
"""After that time nobody works any more on what was left beside a folder."""
IGNORED = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers leave in a folder; nobody misses it."""


@contextmanager
def write_whole(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives an empty folder to fill, and puts it at ``out`` if nothing was raised; otherwise ``out`` stays as it was.

    Files and folders get the modes that the umask gives new ones. A symbolic link stays, and what it points to is replaced.

    Raises:
        ClipstepError: somebody else is writing there; something is at ``out``, and it is not to be replaced. If it came while the new
            folder was filled, the error says where the new one is.
    """
    out = Path(os.path.realpath(out))
    with one_writer(out):
        recover(out)
        if not (replace or _is_free(out)):
            raise ClipstepError(f"{out}: exists", fix="replace it with --force, or choose another place")
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        new = beside(out, f"new-{secrets.token_hex(4)}")
        new.mkdir()
        try:
            yield new
            settle(new)
            if not (replace or _is_free(out)):
                kept = out.with_name(f"{out.name}-{secrets.token_hex(2)}")
                new.rename(kept)
                raise ClipstepError(f"{out}: something else was written there meanwhile", fix=f"the new one is {kept}")
            _put(new, out)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextmanager
def write_file(out: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Gives a name to write a file to, and puts it at ``out`` if nothing was raised; what was there stays until the new one is whole.

    The file gets that ``mode``, by default the one that the umask gives new files.

    Raises:
        ClipstepError: somebody else is writing there.
    """
    out = Path(os.path.realpath(out))
    with one_writer(out):
        place = beside(out, f"new-{secrets.token_hex(4)}")
        new = place.with_name(place.name + out.suffix)  # Libraries choose a format by the ending.
        try:
            yield new
            _settle_file(new, _new_mode(out.parent))
            if mode is not None:
                new.chmod(mode)
            new.replace(out)
            _sync(out.parent)
        finally:
            new.unlink(missing_ok=True)


def recover(out: Path) -> None:
    """Gives an older folder its name back, if a writer was killed while it replaced it."""
    old = beside(out, "old")
    if os.path.lexists(out) or not old.is_dir():
        return
    with suppress(BeingWrittenError), one_writer(out):  # A writer between its two renames puts the new one there.
        if not os.path.lexists(out) and old.is_dir():
            old.rename(out)


def settle(folder: Path) -> None:
    """Gives everything in a new folder the modes that the umask gives new files (many libraries write them for the user alone), and
    makes sure that it is on the disk."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for place, folders, files in os.walk(folder):
        for name in files:
            _settle_file(Path(place, name), mode)
        for name in folders:
            if not Path(place, name).is_symlink():
                Path(place, name).chmod(mode)
        _sync(Path(place))


def _settle_file(path: Path, folder_mode: int) -> None:
    if path.is_symlink():
        return
    executable = bool(path.stat().st_mode & stat.S_IXUSR)
    path.chmod(folder_mode & (0o777 if executable else 0o666))
    _sync(path)


def _new_mode(folder: Path) -> int:
    """That of a new folder in there: the umask cannot be asked for without setting it, for all threads."""
    probe = folder / f".mode-{secrets.token_hex(4)}"
    probe.mkdir()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    return mode


def _put(new: Path, out: Path) -> None:
    if _is_free(out):
        if out.is_dir():
            shutil.rmtree(out)  # Nothing but what file managers leave.
        new.rename(out)
    elif not _exchange(new, out):
        old = beside(out, "old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        try:
            new.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync(out.parent)


def _exchange(new: Path, out: Path) -> bool:
    """Swaps two folders at once; False where the system or the disk cannot."""
    names = {"linux": "renameat2", "darwin": "renameatx_np"}
    here = {"linux": -100, "darwin": -2}
    call = getattr(ctypes.CDLL(None), names.get(sys.platform, "?"), None) if sys.platform in names else None
    if call is None:
        return False
    done: int = call(here[sys.platform], os.fsencode(new), here[sys.platform], os.fsencode(out), 2)
    return done == 0


def _is_free(out: Path) -> bool:
    return not os.path.lexists(out) or (out.is_dir() and {path.name for path in out.iterdir()} <= IGNORED)


def _remove_abandoned(out: Path) -> None:
    """What killed writers left beside it."""
    for left in out.parent.glob(f"{glob.escape(beside(out, 'new-').name)}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)
    if beside(out, "old").is_dir() and os.path.lexists(out):
        shutil.rmtree(beside(out, "old"), ignore_errors=True)


def _sync(path: Path) -> None:
    with suppress(OSError):  # Not every disk can; then nothing is lost but the promise.
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
