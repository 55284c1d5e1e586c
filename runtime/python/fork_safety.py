"""Keep engines from hanging in processes made by `os.fork()`, which `multiprocessing` and gunicorn's preloading call.

A forked process has a copy of the memory, but none of the threads that an engine started.
"""

import ctypes
import os
from typing import Any
from weakref import WeakSet

from clipstep.runtime.errors import EngineError

FIX = "load it in the process that runs it: after the fork, or in a process that was not forked (multiprocessing's start method spawn)"


class OwnerProcess:
    """Remembers the process that an engine's threads belong to."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def check(self, what: object) -> None:
        """Check that `what` is used in the process that loaded it.

        Raises:
            EngineError: this process was forked from that one, so that a step would wait for ever for threads that do not exist here.
        """
        if os.getpid() != self._process:
            raise EngineError(f"{what}: was loaded before this process was forked", got=f"process {os.getpid()}", expected=self._process, fix=FIX)


_owners: "WeakSet[Any]" = WeakSet()
_hooked = False


def make_fork_safe(owner: Any) -> None:
    """Make sure that processes forked from this one can close the engine `owner` and exit.

    A forked process neither frees the object that `owner.threaded_resource()` returns nor runs the destructors of native libraries when it
    exits: both would wait for threads that do not exist there. (onnxruntime 1.32 starts one when it is imported.) The fork hook is
    registered with the first engine, not on import.
    """
    global _hooked
    _owners.add(owner)
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for owner in list(_owners):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner.threaded_resource()))
    _owners.clear()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc calls handlers in reverse order: this _exit(status) comes after Python's own shutdown.
        libc.on_exit(libc._exit, None)
