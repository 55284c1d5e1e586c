"""Write a file or a folder atomically: if the writer is killed, either the old one or the new one is there, complete.

The new one is written under a hidden name next to its destination, on the same disk, and moved into place by one system call. Linux and
macOS exchange two folders in one call. Elsewhere the old folder is called `.NAME.old` for the time between two renames, and `recover`
gives it its name back.
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
from clipstep.runtime.filesystem.locking import WriteLockedError, hidden_sibling, write_lock

ABANDONED_SECONDS = 24 * 3600
"""A temporary folder that is older belongs to no running writer, and is deleted."""
IGNORED = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that file managers leave in a folder. One that holds nothing else counts as empty."""


@contextmanager
def atomic_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, and move it to `out` unless an exception was raised; then `out` stays as it was.

    Files and folders get the permissions that the umask gives new ones. A symbolic link stays, and its target is replaced.

    Args:
        out: where the folder is to be.
        replace: whether something that is there may be replaced.

    Raises:
        ClipstepError: another process or thread is writing there; `out` exists and `replace` is false. If it appeared while the new
            folder was being filled, the error says where the new one was kept.
    """
    out = Path(os.path.realpath(out))
    with write_lock(out):
        recover(out)
        if not (replace or _is_free(out)):
            raise ClipstepError(f"{out}: exists", fix="replace it with --force, or choose another place")
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        new = hidden_sibling(out, f"new-{secrets.token_hex(4)}")
        try:
            new.mkdir()  # Inside, because Ctrl-C may come as soon as it is there.
            yield new
            set_modes_and_sync(new)
            if not (replace or _is_free(out)):
                kept = out.with_name(f"{out.name}-{secrets.token_hex(2)}")
                new.rename(kept)
                raise ClipstepError(f"{out}: something else was written there meanwhile", fix=f"the new one is {kept}")
            _put(new, out)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextmanager
def atomic_file(out: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a path to write a file to, and move it to `out` unless an exception was raised. Until then an older file stays at `out`.

    Args:
        out: where the file is to be.
        mode: its permissions; by default those that the umask gives new files.

    Raises:
        ClipstepError: another process or thread is writing there.
    """
    out = Path(os.path.realpath(out))
    with write_lock(out):
        place = hidden_sibling(out, f"new-{secrets.token_hex(4)}")
        new = place.with_name(place.name + out.suffix)  # Libraries choose a format by the suffix.
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
    """Give an older folder its name back, if a writer was killed after it had moved it away."""
    old = hidden_sibling(out, "old")
    if os.path.lexists(out) or not old.is_dir():
        return
    with suppress(WriteLockedError), write_lock(out):  # A writer that is between its two renames holds the lock, and goes on itself.
        if not os.path.lexists(out) and old.is_dir():
            old.rename(out)


def set_modes_and_sync(folder: Path) -> None:
    """Give everything in a new folder the permissions that the umask gives new files, and flush it to the disk.

    Many libraries create files that only their owner can read.
    """
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
    """Return the permissions of a new folder in `folder`. Reading the umask itself is only possible by changing it, for all threads."""
    probe = folder / f".mode-{secrets.token_hex(4)}"
    probe.mkdir()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    return mode


def _put(new: Path, out: Path) -> None:
    if _is_free(out):
        if out.is_dir():
            shutil.rmtree(out)  # It holds nothing but what file managers leave.
        new.rename(out)
    elif not _exchange(new, out):
        old = hidden_sibling(out, "old")
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
    """Exchange two folders in one system call; return False where the system or the disk cannot."""
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
    """Delete what killed writers left next to `out`."""
    for left in out.parent.glob(f"{glob.escape(hidden_sibling(out, 'new-').name)}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)
    if hidden_sibling(out, "old").is_dir() and os.path.lexists(out):
        shutil.rmtree(hidden_sibling(out, "old"), ignore_errors=True)


def _sync(path: Path) -> None:
    with suppress(OSError):  # Not every disk supports it. The file is then complete, but may not survive a power cut.
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
