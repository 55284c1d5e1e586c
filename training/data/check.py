"""``clipstep train --check``: read every video of a data set once, and list those that a training could not use or that are there twice."""

import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.runtime.cores import available_cores
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError, read_frames
from clipstep.runtime.wording import counted
from clipstep.training.data.balance import describe_balance
from clipstep.training.data.leakage import same_content
from clipstep.training.data.lists import Clip, DataSet
from clipstep.training.probe import describe_rates, frame_rates, median_rate


@dataclass(frozen=True)
class Check:
    """What was found in a data set. Videos are named by their shown paths."""

    broken: dict[str, str]
    """Videos that cannot be read to their end, with the reason."""
    too_short: dict[str, int]
    """Videos with fewer frames than a subclip, with the number of their frames."""
    duplicates: list[list[tuple[str, str]]]
    """Videos that have the same content, or are named several times: each with the list that it is in."""


def lists_of(data: DataSet) -> dict[str, Sequence[Clip]]:
    """Return the lists of a data set by name; that of the validation only if there is one."""
    lists = {"training": data.train, "validation": data.validation, "test": data.test}
    return {name: clips for name, clips in lists.items() if clips or name != "validation"}


def check_videos(data: DataSet, frames: int, short_side: int, fps: float | None, console: Console, processes: int) -> Check:
    """Read every video at ``fps`` frames a second, as a training with subclips of ``frames`` frames does, in that many processes.

    Raises:
        ClipstepError: a process was killed.
    """
    clips = list({clip.shown_path: clip for every in lists_of(data).values() for clip in every}.values())
    broken, too_short = {}, {}
    with _mapper(min(processes, len(clips))) as in_processes:
        read = track(
            in_processes(partial(_frames_or_reason, short_side=short_side, fps=fps), clips),
            "reading",
            total=len(clips),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        for clip, found in zip(clips, read, strict=True):
            if isinstance(found, str):
                broken[str(clip.shown_path)] = found.removeprefix(f"{clip.path}: ")
            elif found < frames:
                too_short[str(clip.shown_path)] = found
    return Check(broken, too_short, _duplicates(data))


def _frames_or_reason(clip: Clip, *, short_side: int, fps: float | None) -> int | str:
    """Return how many frames a video has at that rate, or why it cannot be read."""
    try:
        return sum(1 for _ in read_frames(clip.path, fps=fps, short_side=short_side, threads=1, cut=clip.cut))
    except VideoError as error:
        return str(error)


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a ``map`` that runs in that many processes. They are new ones, not forks of this one, which has threads."""
    if processes < 2:
        yield map
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ClipstepError("a process that reads videos was killed", got=error, fix="free memory, and check again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _duplicates(data: DataSet) -> list[list[tuple[str, str]]]:
    named = [(clip, name) for name, clips in lists_of(data).items() for clip in clips]
    first = {path: files[0] for files in same_content(clip.path for clip, _ in named) for path in files}
    alike: dict[Any, list[tuple[str, str]]] = defaultdict(list)
    for clip, name in named:
        alike[first.get(clip.path, clip.path), clip.cut].append((str(clip.shown_path), name))
    return [videos for videos in alike.values() if len(videos) > 1]


def check_data(folder: Path, data: DataSet, frames: int, short_side: int, fps: float | None, *, allow_leakage: bool, as_json: bool) -> None:
    """Read every video of the data set in ``folder`` and print what was found, as JSON if asked for.

    ``fps`` is how many frames a second the training takes; None for the median of its videos' rates.

    Raises:
        ClipstepError: something has to be put right; with ``allow_leakage`` duplicates do not.
    """
    console = new_console(quiet=as_json)
    try:
        rates = frame_rates(data.train)
    except VideoError:  # Each of them is read below, with its own reason.
        rates = []
    fps = fps or (median_rate(rates) if rates else None)
    check = check_videos(data, frames, short_side, fps, console, available_cores())
    if as_json:
        print_json({"data": str(folder), "frames": frames, "fps": fps, "video_rates": rates[:1] + rates[-1:], **_json(data, check)})
    else:
        _report(folder, data, check, console)
        if rates and fps:
            console.print(describe_rates(rates, fps), soft_wrap=True)
    if wrong := _problems(data, check, allow_leakage=allow_leakage):
        raise ClipstepError(f"{folder}: {wrong}", expected=f"videos of at least {frames} frames, each of them once", fix="remove or replace them")


def _report(folder: Path, data: DataSet, check: Check, console: Console) -> None:
    videos = counted(sum(map(len, lists_of(data).values())), "video")
    console.print(f"{folder}: {videos} in the layout {data.layout}", soft_wrap=True)
    print_table(console, _table(data))
    console.print(describe_balance(data.train, data.labels), soft_wrap=True)
    for path, reason in check.broken.items():
        console.print(f"broken: {path}: {reason}", soft_wrap=True)
    for path, count in check.too_short.items():
        console.print(f"too short: {path}: {counted(count, 'frame')}", soft_wrap=True)
    for alike in check.duplicates:
        console.print(f"the same: {', '.join(f'{path} ({name})' for path, name in alike)}", soft_wrap=True)
    for warning in data.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)


def _table(data: DataSet) -> Table:
    lists = lists_of(data)
    table = new_table("class", *lists)
    for label, row in class_counts(data).items():
        table.add_row(label, *map(str, row.values()))
    return table


def class_counts(data: DataSet) -> dict[str, dict[str, int]]:
    """Return how many videos each class has in each list."""
    counts = {name: Counter(clip.label for clip in clips) for name, clips in lists_of(data).items()}
    return {label: {name: count[index] for name, count in counts.items()} for index, label in enumerate(data.labels)}


def _json(data: DataSet, check: Check) -> dict[str, Any]:
    """Return everything that was found as JSON values."""
    return {
        "layout": data.layout,
        "classes": class_counts(data),
        "broken": [{"video": path, "reason": reason} for path, reason in check.broken.items()],
        "too_short": [{"video": path, "frames": count} for path, count in check.too_short.items()],
        "duplicates": [[{"video": path, "list": name} for path, name in videos] for videos in check.duplicates],
        "warnings": list(data.warnings),
    }


def _problems(data: DataSet, check: Check, *, allow_leakage: bool) -> str:
    """Return in words what has to be put right, or an empty text."""
    found = [(len(check.broken), "broken video"), (len(check.too_short), "too short video")]
    if not allow_leakage:
        found.append((len(check.duplicates), "duplicate"))
    leaks = ["data leakage"] if data.leaks and not check.duplicates and not allow_leakage else []
    return ", ".join([*(counted(count, what) for count, what in found if count), *leaks])
