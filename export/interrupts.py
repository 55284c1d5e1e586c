"""Ctrl-C that is not lost: Python prints and forgets an exception that is raised in a callback of the converters, such as that of a weak
reference, and some of them catch whatever is raised."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from clipstep.runtime.terminal import Doing


class _Heard:
    """A handler of SIGINT that raises KeyboardInterrupt as Python's own does, and remembers it."""

    def __init__(self) -> None:
        self._heard = threading.Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._heard.set()
        signal.default_int_handler(number, frame)

    def stop(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self._heard.is_set():
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if Ctrl-C was pressed since and nobody heard.

    It sees nothing where Ctrl-C is the caller's business: outside the main thread, or with another handler than Python's own.
    """
    before = signal.getsignal(signal.SIGINT)
    if isinstance(before, _Heard):
        yield before.stop
        return
    handler = _Heard()
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield handler.stop
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield handler.stop
    finally:
        if signal.getsignal(signal.SIGINT) is handler:  # Else another handler was set since, which is not ours to take away.
            signal.signal(signal.SIGINT, before)


def stopping(doing: Doing, stop: Callable[[], None]) -> Doing:
    """``doing``, whose steps call ``stop`` when they are over."""

    @contextlib.contextmanager
    def step(name: str, told: bool = False) -> Iterator[None]:
        with doing(name, told):
            yield
        stop()

    return step
