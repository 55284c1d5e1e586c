"""How a command ends: every error is one line on standard error and an exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import click

from clipstep.runtime.errors import ClipstepError

DEBUG = "CLIPSTEP_DEBUG"
"""The environment variable that shows the traceback of whatever ended a command."""
MISTAKE, BUG, INTERRUPTED, CLOSED_PIPE = 2, 1, 130, 141
"""Exit codes: a user's mistake; clipstep's own; Ctrl-C, and a reader who left, as shells number these signals."""
MOST_CHARACTERS = 2000


def exit_code(command: Callable[[], Any]) -> int:
    """Runs ``command`` to its end, says on one line what went wrong, and gives the exit code."""
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
        code, line = _last_words(error)
        if line:
            print(one_line(line), file=sys.stderr, flush=True)
        if isinstance(error, OSError):
            _forget_output()
        return code
    return 0


def one_line(text: str) -> str:
    """The text with what would break the line, or steer the terminal, written as an escape, and cut if it is very long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.strip())
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[:MOST_CHARACTERS]}…"


def _last_words(error: BaseException) -> tuple[int, str]:
    if any(isinstance(cause, KeyboardInterrupt | click.Abort) for cause in _causes(error)):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # A second Ctrl-C must not spoil the end.
        return INTERRUPTED, "interrupted"
    if isinstance(error, ClipstepError):
        return MISTAKE, f"error: {error}"
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "clipstep"
        return MISTAKE, f"error: {error.format_message().rstrip('.')}; see {path} --help"
    if isinstance(error, click.ClickException):
        return MISTAKE, f"error: {error.format_message()}"
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE, ""
    if isinstance(error, OSError) and error.strerror:
        return MISTAKE, f"error: {error.filename or 'the disk'}: {error.strerror}"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return MISTAKE, "error: there is not enough memory; use smaller frames, fewer of them, or smaller batches"
    return BUG, f"error: this is a bug of clipstep: {type(error).__name__}: {error}; {DEBUG}=1 shows where; please report it with that"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: libraries turn a Ctrl-C in their import into errors of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _forget_output() -> None:
    """Lets what could not be written go, so that Python's own end does not complain of it again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # There is no such stream.
        return
