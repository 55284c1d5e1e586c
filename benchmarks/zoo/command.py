"""``clipstep bench-models --family zoo``: export and measure the networks that people deploy."""

from collections.abc import Sequence
from pathlib import Path

from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.zoo.entries import ENTRIES
from clipstep.benchmarks.zoo.measure import row_of
from clipstep.benchmarks.zoo.tables import print_rows
from clipstep.network.videos import read_subclips
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError
from clipstep.training.data.lists import DataSet


def bench_zoo(data: DataSet, out: Path, names: Sequence[str], options: BenchOptions, *, arm64: bool) -> None:
    """Export and measure the networks of `ENTRIES` with these names, and print the tables.

    Raises:
        ClipstepError: no test video is long enough for a clip.
    """
    entries, console = [ENTRIES[name] for name in dict.fromkeys(names)], new_console()
    video = _video(data, max(entry.frames for entry in entries))
    out.mkdir(parents=True, exist_ok=True)
    rows = [row_of(entry, video, out, options, console, arm64=arm64) for entry in entries]
    print_rows(console, rows, arm64=arm64)


def _video(data: DataSet, frames: int) -> Path:
    """Return the first test video with that number of frames; networks get their statistics and golden steps from it."""
    for clip in data.test:
        try:
            read_subclips(clip.path, frames, 16)
        except VideoError:
            continue
        return clip.path
    raise ClipstepError("no test video is long enough", got=f"{len(data.test)} videos", expected=f"one of at least {frames} frames")
