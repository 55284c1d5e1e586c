"""A context manager for changes of the whole process, such as its streams or the settings of its libraries."""

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager


class RefCountedContext(AbstractContextManager[None]):
    """A context that several threads may be in at once, or one thread several times.

    The first to enter makes the change, by entering the context that `change()` returns; the last to leave undoes it.
    """

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
