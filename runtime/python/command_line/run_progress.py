"""The progress bar of `clipstep run`: how far it is, how many times faster than the video plays, and the time that is left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipstep.runtime.video import VideoError, open_video

Advance = Callable[[float, float], object]
"""A function that is told how much is done, in the unit of the bar's total, and how many seconds of video that is."""


@contextmanager
def progress_bar(total: float | None, unit: str, *, shown: bool) -> Iterator[Advance]:
    """Show a bar on standard error, if that is a terminal and `shown` is true, and yield the function that moves it on.

    The bar disappears at the end. What is printed meanwhile by `print` stands above it.

    Args:
        total: how much there is to do; None if nobody knows.
        unit: what is counted, such as "videos".
        shown: whether to show it at all.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done, seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.fields[amounts]}", markup=False), TimeRemainingColumn())
    console = Console(stderr=True, markup=False, emoji=False)
    # What goes to a file or a pipe must not be printed on the terminal instead.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        bar.add_task("", total=total, amounts="")
        task = bar.tasks[0]

        def advance(done: float, seconds: float) -> None:
            if task.total is not None and done > task.total:
                task.total = None  # A file may say a wrong duration.
            all_of_it = "" if task.total is None else f" of {task.total:.0f}"
            rate = seconds / task.elapsed if task.elapsed else 0.0
            bar.update(task.id, completed=done, amounts=f"{done:.0f}{all_of_it} {unit}, {rate:.1f} x real time")

        yield advance


def duration_of(video: Path) -> float | None:
    """Return the seconds that a video says it lasts; None if it says nothing or cannot be opened."""
    with suppress(VideoError), open_video(video) as (container, stream):
        if container.duration:
            return container.duration / 1e6
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
    return None
