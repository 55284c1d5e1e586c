"""The exclusive lock of a path that is being written. A second process that wants to write there gets an error with the process ID of the first.

The lock is an `flock` of a file next to the path, `.NAME.lock`, which is deleted at the end. The system releases it when the process ends,
however that happens, so that a lock file left by a killed process blocks nobody. Over NFS it works between machines if the server
supports locks. On Windows and on disks without locks nobody is refused; files are still written atomically.
"""

import errno
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clipstep.runtime.errors import ClipstepError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""The errors of a disk that has no locks."""
POLL_SECONDS = 0.05
"""How often a writer that waits tries again."""
LONGEST = 50
"""How many characters of a file's name are kept in the names derived from it, so that these do not get too long for the disk."""


class WriteLockedError(ClipstepError):
    """Another process or thread is writing to a path."""


_held: dict[Path, tuple[int, int]] = {}
"""For each path that this process is writing to: the thread that does so, and the lock's file descriptor."""


@contextmanager
def write_lock(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `out`, which need not exist. It is reentrant: the thread that holds it may take it again.

    Args:
        out: the file or folder that is written.
        wait: wait until nobody else is writing there, in place of raising an error.

    Raises:
        WriteLockedError: another process, or another thread of this one, is writing there, and `wait` is false.
        ClipstepError: nothing can be written next to it.
    """
    out = Path(os.path.realpath(out))
    held = _held.get(out)
    if held is not None and held[0] == threading.get_ident():
        yield
        return
    made = [folder for folder in out.parents if not folder.exists()]
    descriptor = _acquire(out, wait=wait)
    _held[out] = threading.get_ident(), descriptor
    try:
        yield
    finally:
        if _held.pop(out, None) is not None:  # It is None in a process that was forked meanwhile; see `_forget`.
            with suppress(OSError):
                hidden_sibling(out, "lock").unlink()  # Before it is released: otherwise another process could lock it just before it is deleted.
            os.close(descriptor)
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()  # This fails, as it should, if something was written.


def hidden_sibling(out: Path, what: str) -> Path:
    """Return the path of a hidden file next to `out` that belongs to it, `.NAME.WHAT`."""
    name = out.name if len(out.name) <= LONGEST else out.name[:LONGEST] + hashlib.sha256(os.fsencode(out.name)).hexdigest()[:8]
    return out.with_name(f".{name}.{what}")


def _acquire(out: Path, *, wait: bool) -> int:
    path = hidden_sibling(out, "lock")
    while True:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ClipstepError(f"{out}: cannot be written", got=f"{path}: {error.strerror}", fix="choose another place") from error
        try:
            locked = _lock(descriptor)
            if not locked and not wait:
                raise WriteLockedError(f"{_holder(descriptor)} is writing to {out}", fix="wait until it is through, or choose another place")
            if locked and _is_at(descriptor, path):  # Otherwise its last holder has deleted it since it was opened.
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not locked:
            time.sleep(POLL_SECONDS)


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _holder(descriptor: int) -> str:
    who = os.read(descriptor, 300).decode(errors="replace").strip().removesuffix(f" on {socket.gethostname()}")
    if who == str(os.getpid()):
        return "another thread of this process"
    return f"another clipstep process{f' ({who})' if who else ''}"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _forget() -> None:
    """Drop the locks in a forked process, such as a worker that decodes videos, which may outlive its parent and would keep them held."""
    for _, descriptor in _held.values():
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
