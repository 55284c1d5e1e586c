"""What users see: one console for all commands, and nothing of what libraries print by themselves."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120


def new_console() -> Console:
    """A console as wide as the terminal; without one, wide enough for the tables."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH_WITHOUT_TERMINAL)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keeps what native libraries and their imports write to file descriptor 2 off the screen; errors come as exceptions."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  os.devnull is no path of a file.
        os.dup2(nowhere.fileno(), 2)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
