"""The terminal output of commands: console, progress and tables."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segments
from rich.table import Table

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
