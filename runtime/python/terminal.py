"""What users of the command line see: one console for all commands, and nothing of what libraries print by themselves.

The redirections here change the whole process, other threads' output included: they are for commands, whose process is their own. No
function that a program may call uses them.
"""

import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO

from rich.console import Console

from clipstep.runtime.process import Shared

WIDTH_WITHOUT_TERMINAL = 120


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # The command ends as any program whose reader has left.


def new_console(file: IO[str] | None = None, *, quiet: bool = False) -> Console:
    """A console as wide as the terminal; without one, wide enough for the tables. What is printed is text as it is, never markup: names
    come from files. A quiet one prints nothing, where standard output is for JSON."""
    width = None if file is None and sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return _Console(file=file, width=width, markup=False, emoji=False, quiet=quiet)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Writes JSON to standard output, whatever its encoding."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=encoding != "utf8") + "\n")
    sys.stdout.flush()


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
def _stderr_to_nowhere() -> Iterator[None]:
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # There is no standard error.
        yield
        return
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  os.devnull is no path of a file.
        os.dup2(nowhere.fileno(), 2)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def _all_to_nowhere() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


_STDERR, _ALL = Shared(_stderr_to_nowhere), Shared(_all_to_nowhere)


def quiet_stderr() -> AbstractContextManager[None]:
    """Keeps what native libraries and their imports write to file descriptor 2 off the screen; errors come as exceptions."""
    return _STDERR


def quiet() -> AbstractContextManager[None]:
    """Keeps the converters' progress bars, warnings and log messages off the screen too; their errors come as exceptions."""
    return _ALL
