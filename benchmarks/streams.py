"""``clipstep bench-streams``: how many videos at once one computer keeps up with, everything counted."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import click
import numpy as np
from rich.table import Table

from clipstep.benchmarks.whole_stream import WholeStream, check_video
from clipstep.runtime.bundle import Bundle, open_for_command
from clipstep.runtime.command_line.options import command, signer_option
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.command_line.terminal import new_console, print_table
from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.wording import counted

COUNTS = (1, 2, 4, 8)
SUBCLIPS, ROUNDS = 8, 5


class _Steps(Protocol):
    def subclip(self) -> object: ...


@dataclass(frozen=True)
class StreamsResult:
    """What was measured of a number of streams at once."""

    streams: int
    threads: int
    real_time_factor: float
    """Seconds of video a second, of all streams together: so many live videos could be run. The median of the rounds."""
    subclip_ms: tuple[float, float]
    """The milliseconds from the start of a subclip's decoding to its prediction: median and 90th percentile."""


def bench_streams(
    bundle: Bundle | str | Path,
    video: str | Path,
    *,
    streams: Sequence[int] = COUNTS,
    threads: int | None = None,
    engine: str = "onnxruntime",
    subclips: int = SUBCLIPS,
    rounds: int = ROUNDS,
) -> list[StreamsResult]:
    """Measure several streams of a video at once on one model: decoding, resizing and steps. The numbers of streams take turns.

    Args:
        bundle: a bundle that takes RGB frames.
        video: the video that each of the streams reads.
        streams: the numbers of streams to measure.
        threads: how many threads work on the streams, each on one subclip at a time; as many as there are cores if None. The engine and the decoder
            of a stream have one thread each.
        engine: a name in `ENGINES`.
        subclips: how many subclips of each stream a round has.
        rounds: how often the numbers of streams take turns.

    Raises:
        ClipstepError: the bundle takes no RGB frames, or a number is below 1.
        VideoError: the video cannot be read, or is shorter than a subclip.
    """
    threads = available_cores() if threads is None else threads
    if min(*streams, threads, subclips, rounds) < 1:
        raise ClipstepError("streams, threads, subclips and rounds are 1 or more", got=f"{list(streams)}, {threads}, {subclips} and {rounds}")
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    check_video(opened, Path(video))
    with StepModel.load(opened, engine, 1) as model, ThreadPoolExecutor(threads) as pool:
        seconds = model.interface.input.shape[0] * model.interface.input.frame_stride / model.interface.input.fps
        made = [WholeStream(model, Path(video), threads=1) for _ in range(max(streams))]
        list(pool.map(WholeStream.subclip, made))  # Warm-up.
        factors: dict[int, list[float]] = {count: [] for count in streams}
        times: dict[int, list[float]] = {count: [] for count in streams}
        for _ in range(rounds):
            for count in factors:
                begin = time.perf_counter()
                times[count] += _subclip_ms(pool, made[:count], subclips)
                factors[count].append(count * subclips * seconds / (time.perf_counter() - begin))
    return [
        StreamsResult(count, threads, float(np.median(factors[count])), tuple(np.percentile(times[count], (50, 90)).tolist())) for count in factors
    ]


def _subclip_ms(pool: ThreadPoolExecutor, streams: Sequence[_Steps], subclips: int) -> list[float]:
    """Go on by so many subclips a stream, always with one that has waited longest; return the milliseconds of each."""
    waiting: SimpleQueue[_Steps] = SimpleQueue()
    for stream in streams:
        waiting.put(stream)

    def go_on(_: int) -> float:
        stream = waiting.get()
        begin = time.perf_counter()
        stream.subclip()
        waiting.put(stream)
        return (time.perf_counter() - begin) * 1e3

    return list(pool.map(go_on, range(len(streams) * subclips)))


@command("bench-streams")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path))
@click.option(
    "--streams", multiple=True, default=COUNTS, show_default=True, type=click.IntRange(1), help="Streams at once. May be given several times."
)
@click.option("--threads", type=click.IntRange(1), help="How many threads work on the streams; by default as many as there are cores.")
@click.option("--engine", default="onnxruntime", show_default=True, help=f"One of {', '.join(ENGINES)}.")
@click.option("--subclips", default=SUBCLIPS, show_default=True, type=click.IntRange(1), help="Subclips of each stream in a round.")
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1), help="How often the numbers of streams take turns.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each number of streams, and nothing else.")
@signer_option
def bench_streams_command(
    bundle: Path,
    video: Path,
    streams: tuple[int, ...],
    threads: int | None,
    engine: str,
    subclips: int,
    rounds: int,
    as_json: bool,
    signer: Path | None,
) -> None:
    """Measure how many streams of VIDEO at once BUNDLE keeps up with on this computer: decoding, resizing and steps.

    All streams share one model. Each thread takes the stream that has waited longest and works on its next subclip; so many threads, and no more,
    are busy.
    """
    opened = click.get_current_context().with_resource(open_for_command(bundle, signer))
    results = bench_streams(opened, video, streams=streams, threads=threads, engine=engine, subclips=subclips, rounds=rounds)
    if as_json:
        for result in results:
            print_json(asdict(result), indent=None)
        return
    table = Table("streams", "threads", "x real time", "each", "ms a subclip, p50", "p90", box=None)
    for result in results:
        times = (f"{milliseconds:.1f}" for milliseconds in result.subclip_ms)
        factors = f"{result.real_time_factor:.1f}", f"{result.real_time_factor / result.streams:.2f}"
        table.add_row(str(result.streams), str(result.threads), *factors, *times)
    print_table(new_console(), table)
    best = max(results, key=lambda result: result.real_time_factor)
    live = counted(int(best.real_time_factor), "live video")
    print(f"at best {best.real_time_factor:.1f} seconds of video a second, with {counted(best.streams, 'stream')}: {live} like this one at once")
