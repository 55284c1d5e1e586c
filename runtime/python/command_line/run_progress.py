"""The progress bar of `clipstep run`: how far it is, how many times faster than the video plays, and the time that is left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from clipstep.runtime.video import VideoError, open_video

Advance = Callable[[float, float], object]
"""A function that is told how much is done, in the unit of the bar's total, and how many seconds of video that is."""


class _Amounts(ProgressColumn):
    """How much is done, of how much if that is known, and how many seconds of video are done in a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f" of {task.total:.0f}"
        rate = task.fields["seconds"] / task.elapsed if task.elapsed else 0.0
        return Text(f"{task.completed:.0f}{total} {self._unit}, {rate:.1f} x real time")


@contextmanager
def progress_bar(total: float | None, unit: str, *, shown: bool) -> Iterator[Advance]:
    """Show a bar on standard error, if that is a terminal and `shown` is true, and yield the function that moves it on.

    The bar disappears at the end. What is printed meanwhile by `print` stands above it.

    Args:
        total: how much there is to do; None if nobody knows.
        unit: what is counted, such as "videos".
        shown: whether to show it at all.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    columns = (BarColumn(), _Amounts(unit), TimeRemainingColumn())
    visible = shown and console.is_terminal
    # What goes to a file or a pipe must not be printed on the terminal instead.
    with Progress(*columns, console=console, transient=True, disable=not visible, redirect_stdout=visible and sys.stdout.isatty()) as bar:
        bar.add_task("", total=total, seconds=0.0)
        task = bar.tasks[0]

        def advance(done: float, seconds: float) -> None:
            if task.total is not None and done > task.total:
                task.total = None  # A file may say a wrong duration.
            bar.update(task.id, completed=done, seconds=seconds)

        yield advance


def duration_of(video: Path) -> float | None:
    """Return the seconds that a video says it lasts; None if it says nothing or cannot be opened."""
    with suppress(VideoError), open_video(video) as (container, stream):
        if container.duration:
            return container.duration / 1e6
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
    return None
