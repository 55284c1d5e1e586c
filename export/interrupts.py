"""Remembers Ctrl-C during an export, so that it is not lost in the converters.

Python ignores an exception that is raised in some callbacks, such as a weak reference's, and some converters catch every exception.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from clipstep.runtime.command_line.terminal import ProgressReporter


class _Handler:
    """A handler of SIGINT that raises KeyboardInterrupt as Python's own does, and remembers that it did."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._interrupted.set()
        signal.default_int_handler(number, frame)

    def stop(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if Ctrl-C was pressed in this context.

    It never raises outside the main thread, or if the program has a handler of its own for SIGINT: then Ctrl-C is the program's business.
    """
    before = signal.getsignal(signal.SIGINT)
    if isinstance(before, _Handler):
        yield before.stop
        return
    handler = _Handler()
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield handler.stop
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield handler.stop
    finally:
        if signal.getsignal(signal.SIGINT) is handler:  # Otherwise another handler was set meanwhile, which stays.
            signal.signal(signal.SIGINT, before)


def stopping(progress: ProgressReporter, stop: Callable[[], None]) -> ProgressReporter:
    """Return a reporter that works as `progress` does, and calls `stop` at the end of each step."""

    @contextlib.contextmanager
    def step(name: str, reported: bool = False) -> Iterator[None]:
        with progress(name, reported):
            yield
        stop()

    return step
