"""One process at a time writes to a place: the second is refused, with the number of the first.

The lock is on a file beside the place, ``.NAME.lock``, which is removed at the end. The system holds it (``flock``), so that it ends
with the process however that dies, and a file that a killed process left behind blocks nobody. Over NFS it holds between machines, where
the server has locks. A disk without locks, and Windows, have none: there nobody is refused, and what is put in place is still whole.
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
"""What a disk without locks answers."""
POLL_SECONDS = 0.05
"""Who waits looks as often."""
LONGEST = 50
"""Characters of a name that are kept in the names beside it, which the disk would otherwise refuse as too long."""


class BeingWrittenError(ClipstepError):
    """Somebody else is writing to a place."""


_held: dict[Path, tuple[int, int]] = {}
"""The thread that writes, and the lock's file descriptor, of each place that this process writes to."""


@contextmanager
def one_writer(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the right to write to ``out``, which need not exist; inside itself, in the same thread, it is the same right.

    With ``wait`` it waits until nobody else is writing there.

    Raises:
        BeingWrittenError: another process, or another thread of this one, is writing there, and nobody waits.
        ClipstepError: nothing can be written beside it.
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
        if _held.pop(out, None) is not None:  # A forked copy of this process holds nothing.
            with suppress(OSError):
                beside(out, "lock").unlink()  # While it is held: nobody holds a file that is gone from its place.
            os.close(descriptor)
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()  # Only if nothing was written.


def beside(out: Path, what: str) -> Path:
    """The name of something hidden beside ``out`` that belongs to it."""
    name = out.name if len(out.name) <= LONGEST else out.name[:LONGEST] + hashlib.sha256(os.fsencode(out.name)).hexdigest()[:8]
    return out.with_name(f".{name}.{what}")


def _acquire(out: Path, *, wait: bool) -> int:
    path = beside(out, "lock")
    while True:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ClipstepError(f"{out}: cannot be written", got=f"{path}: {error.strerror}", fix="choose another place") from error
        try:
            locked = _lock(descriptor)
            if not locked and not wait:
                raise BeingWrittenError(f"{_holder(descriptor)} is writing to {out}", fix="wait until it is through, or choose another place")
            if locked and _is_at(descriptor, path):  # Otherwise the one that held it has removed it meanwhile.
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
    """In a forked copy, such as a worker that decodes videos: it may outlive its parent, and must not hold the place any longer."""
    for _, descriptor in _held.values():
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
