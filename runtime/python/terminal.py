"""What users see: one console for all commands, and nothing of what libraries print by themselves."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # The command ends as any program whose reader has left.


def new_console() -> Console:
    """A console as wide as the terminal; without one, wide enough for the tables."""
    return _Console() if sys.stdout.isatty() else _Console(width=WIDTH_WITHOUT_TERMINAL)


def prepare_streams() -> None:
    """Makes the standard streams of this process take whatever a command says.

    A closed one is opened on nothing, because the next file to be opened would take its place. What a stream's encoding lacks, such as a
    label under a C locale or a file name that is not UTF-8, is written as an escape.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  It is a descriptor, for good.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
