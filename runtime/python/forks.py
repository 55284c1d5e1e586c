"""Engines and ``os.fork()``, as ``multiprocessing`` and gunicorn's preloading call it: a forked process has a copy of the memory, but none
of the threads that an engine started."""

import ctypes
import os
from typing import Any
from weakref import WeakSet

from clipstep.runtime.errors import EngineError

FIX = "load it in the process that runs it: after the fork, or in a process that was not forked (multiprocessing's start method spawn)"


class LoadedHere:
    """The process that an engine's threads are in."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def check(self, what: object) -> None:
        """Checks that ``what`` is used in the process that loaded it.

        Raises:
            EngineError: this is one that was forked from it: a step would wait for threads that are not there, for ever.
        """
        if os.getpid() != self._process:
            raise EngineError(f"{what}: was loaded before this process was forked", got=f"process {os.getpid()}", expected=self._process, fix=FIX)


_owners: "WeakSet[Any]" = WeakSet()
_hooked = False


def survive_forks(owner: Any) -> None:
    """Sees to it that processes forked from this one can close the engine ``owner`` and end.

    What ``owner.with_threads()`` gives is not freed there, nor are destructors of native libraries run when such a process ends: both
    would wait for threads that are not there. (onnxruntime 1.32 starts one when it is imported.) The hook for this is registered
    with the first engine, not on import.
    """
    global _hooked
    _owners.add(owner)
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for owner in list(_owners):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner.with_threads()))
    _owners.clear()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc runs what was registered last first: _exit(status), once Python has ended in order.
        libc.on_exit(libc._exit, None)
