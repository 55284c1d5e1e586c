"""The terminal output of commands: console, progress, tables and JSON. It can also hide what libraries print.

Hiding redirects streams of the whole process, including the output of other threads. Only commands do it, because each has a process of its
own; no public function does.
"""

import contextlib
import io
import json
import logging
import os
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segments
from rich.table import Table

from clipstep.runtime.refcounted_context import RefCountedContext

PACKAGES = ("site-packages", "dist-packages")
"""The names of folders of installed libraries."""
NATIVE = "Triggered internally at"
"""A text that is in all warnings of torch's native code. The call stack does not tell where these come from."""
WIDTH_WITHOUT_TERMINAL, TABLE_WIDTH_WITHOUT_TERMINAL = 120, 80


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # Ends the command, as a closed output ends any program.


def new_console(file: IO[str] | None = None, *, quiet: bool = False) -> Console:
    """Return a console as wide as the terminal or, without one, wide enough for the tables.

    It prints text as it is and interprets no markup, because names come from files. A quiet one prints nothing; it is used
    when standard output is for JSON.
    """
    width = None if file is None and sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    # Bound to sys.stdout as it is now, so that a status line goes on while `quiet` replaces sys.stdout.
    return _Console(file=file or sys.stdout, width=width, markup=False, emoji=False, quiet=quiet)


ProgressReporter = Callable[[str, bool], AbstractContextManager[object]]
"""A function `(name, reported)` that returns a context for one step of a command, in which the step is run; see `ConsoleProgress`."""


class ConsoleProgress:
    """Shows which step a command is at; a `ProgressReporter`.

    On a terminal it is a status line with the seconds so far, which disappears when the step is over. Elsewhere a line with the seconds
    that the step took is printed afterwards, unless `reported` says that the command reports them itself.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def __call__(self, name: str, reported: bool = False) -> Iterator[None]:
        started = time.monotonic()
        shown = self.console.is_terminal and not self.console.quiet
        how: dict[str, Any] = {"transient": True, "refresh_per_second": 4, "redirect_stdout": False, "redirect_stderr": False}
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self.console, disable=not shown, **how) as bar:
            bar.add_task(name, total=None)
            yield
        if not self.console.is_terminal and not reported:
            self.console.print(f"{name}: {time.monotonic() - started:.1f} s", soft_wrap=True)


def no_progress(_: str, reported: bool = False) -> AbstractContextManager[object]:
    """A `ProgressReporter` that shows nothing."""
    return contextlib.nullcontext()


def new_table(*headings: str, texts: int = 1, title: str | None = None) -> Table:
    """Return a table whose first `texts` columns hold text and whose others hold numbers, for `print_table`.

    A heading may have several lines, so that the table fits 80 columns.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < texts else "right", vertical="bottom", no_wrap=index >= texts)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table without breaking numbers or words; in a terminal that is too narrow for that, its lines wrap."""
    for column in table.columns:
        cells = [str(cell) for cell in (column.header, *column.cells)]
        column.min_width = max(cell_len(part) for cell in cells for part in (cell.splitlines() if column.no_wrap else cell.split()) or [""])
    room = console.width if console.is_terminal else TABLE_WIDTH_WITHOUT_TERMINAL
    width = max(room, console.measure(table, options=console.options.update(width=10_000)).minimum)
    console.print(Segments(list(console.render(table, console.options.update(width=width)))), soft_wrap=True, end="")


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Write JSON to standard output, as ASCII unless its encoding is UTF-8."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=encoding != "utf8") + "\n")
    sys.stdout.flush()


def prepare_streams() -> None:
    """Make sure that the standard streams of this process exist and accept any text.

    A stream that is closed is opened on the null device: otherwise the next file to be opened would get its descriptor. Characters that the
    encoding lacks, such as those of a label under a C locale or of a file name that is not UTF-8, are escaped.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  It stays open.
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


def _is_of_a_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if str(frame.f_globals.get("__name__")).startswith("clipstep."):
        return False
    return file.startswith((sysconfig.get_paths()["stdlib"], "<")) or any(folder in Path(file).parts for folder in PACKAGES)


def _shown_if_theirs(show: Callable[..., None]) -> Callable[..., None]:
    """Return a `warnings.showwarning` that passes only warnings of the user's code and of clipstep on to `show`.

    Which code raised the warning is read from the call stack. The file and line that the warning names do not tell: a library can set them with
    `stacklevel`, and often names the user's line that called it.
    """

    def shown(message: Warning | str, *about: Any, **more: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename == warnings.__file__:
            frame = frame.f_back
        if not _is_of_a_library(frame) and NATIVE not in str(message):
            show(message, *about, **more)

    return shown


@contextlib.contextmanager
def library_warnings_hidden() -> Iterator[None]:
    """Hide the warnings of libraries, which the user cannot fix; those of the user's code and of clipstep are shown."""
    show = warnings.showwarning
    warnings.showwarning = _shown_if_theirs(show)
    try:
        yield
    finally:
        warnings.showwarning = show


_STDERR, _ALL = RefCountedContext(_stderr_to_nowhere), RefCountedContext(_all_to_nowhere)


def quiet_stderr() -> AbstractContextManager[None]:
    """Hide what native libraries and imports write to file descriptor 2. Errors are still raised as exceptions."""
    return _STDERR


def quiet() -> AbstractContextManager[None]:
    """Hide what `quiet_stderr` hides, and standard output, progress bars, warnings and log messages. Errors are still raised as exceptions."""
    return _ALL
