"""Changes of what belongs to the whole process: its streams, its libraries' settings."""

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager


class Shared(AbstractContextManager[None]):
    """A change of the process that several threads may ask for at once, or one may ask for again inside itself: the first makes it, and
    the last takes it back. ``change()`` gives the context that makes it."""

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        self._change, self._lock, self._count, self._made = change, threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._made.enter_context(self._change())
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._made.close()
