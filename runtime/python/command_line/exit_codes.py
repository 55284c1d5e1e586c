"""How a command ends: every error becomes one line on standard error and an exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import click

from clipstep.runtime.errors import ClipstepError

DEBUG = "CLIPSTEP_DEBUG"
"""The environment variable that makes a command print the traceback of the error that ended it."""
USER_ERROR, BUG, INTERRUPTED, CLOSED_PIPE = 2, 1, 130, 141
"""Exit codes: an error that the user can put right; a bug of clipstep; and, as in shells, 128 plus the number of a signal: after Ctrl-C, and if
the program that reads the output has ended."""
MOST_CHARACTERS = 2000


def run_for_exit_code(command: Callable[[], Any]) -> int:
    """Run `command`, print on one line what went wrong, and return the exit code."""
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
        code, line = _code_and_message(error)
        if line:
            print(one_line(line), file=sys.stderr, flush=True)
        if isinstance(error, OSError):
            _discard_output()
        return code
    return 0


def one_line(text: str) -> str:
    """Return the text with line breaks and control characters escaped, and cut if it is very long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.strip())
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[:MOST_CHARACTERS]}…"


def _code_and_message(error: BaseException) -> tuple[int, str]:
    if any(isinstance(cause, KeyboardInterrupt | click.Abort) for cause in _causes(error)):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # A second Ctrl-C must not interrupt the clean-up.
        return INTERRUPTED, "interrupted"
    if isinstance(error, ClipstepError):
        return USER_ERROR, f"error: {error}"
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "clipstep"
        return USER_ERROR, f"error: {error.format_message().rstrip('.')}; see {path} --help"
    if isinstance(error, click.ClickException):
        return USER_ERROR, f"error: {error.format_message()}"
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE, ""
    if isinstance(error, OSError) and error.strerror:
        return USER_ERROR, f"error: {error.filename or 'the disk'}: {error.strerror}"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return USER_ERROR, "error: there is not enough memory; use smaller frames, fewer of them, or smaller batches"
    return BUG, f"error: this is a bug of clipstep: {type(error).__name__}: {error}; {DEBUG}=1 shows where; please report it with that"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes: libraries turn a Ctrl-C during their import into errors of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _discard_output() -> None:
    """Discard the output that could not be written, so that Python does not report it again when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # There is no standard output.
        return
