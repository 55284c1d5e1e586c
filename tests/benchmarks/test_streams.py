"""Several streams at once: each thread has one at a time, none waits behind another, and everything is counted."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clipstep.benchmarks import bench_streams
from clipstep.benchmarks.streams import _subclip_ms
from clipstep.runtime import ClipstepError, VideoError

Cli = Callable[..., tuple[int, str, str]]


class Slept:
    """A stream whose subclip takes 5 ms; it counts how many threads are in it, and in all of them."""

    at_once, most = 0, 0
    lock = threading.Lock()

    def __init__(self) -> None:
        self.here, self.done = 0, 0

    def subclip(self) -> None:
        with Slept.lock:
            self.here, Slept.at_once = self.here + 1, Slept.at_once + 1
            assert self.here == 1
            Slept.most = max(Slept.most, Slept.at_once)
        time.sleep(0.005)
        with Slept.lock:
            self.here, Slept.at_once, self.done = self.here - 1, Slept.at_once - 1, self.done + 1


@pytest.mark.parametrize(("count", "threads", "at_once"), [(1, 3, 1), (5, 2, 2)])
def test_so_many_threads_share_the_streams(count: int, threads: int, at_once: int) -> None:
    Slept.most = 0
    streams = [Slept() for _ in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        times = _subclip_ms(pool, streams, 4)
    assert len(times) == sum(stream.done for stream in streams) == 4 * count and min(times) >= 5
    assert Slept.most == at_once and {stream.done for stream in streams} <= {3, 4, 5}


def test_the_command_measures_each_number(bundle_path: Path, clip: Path, clipstep: Cli) -> None:
    sizes = ("--streams", 1, "--streams", 3, "--subclips", 2, "--rounds", 1, "--threads", 2)
    code, out, error = clipstep("bench-streams", bundle_path, clip, *sizes, "--json")
    assert code == 0, error
    results = [json.loads(line) for line in out.splitlines()]
    assert [(result["streams"], result["threads"]) for result in results] == [(1, 2), (3, 2)]
    alone = results[0]  # Its two subclips, of 4 frames of 25 a second, come one after the other.
    assert 0.5 < alone["real_time_factor"] * alone["subclip_ms"][0] / 160 <= 1
    code, out, _ = clipstep("bench-streams", bundle_path, clip, *sizes)
    assert code == 0 and [line.split()[:2] for line in out.splitlines()[1:3]] == [["1", "2"], ["3", "2"]]
    assert " seconds of video a second, with " in out.splitlines()[-1]


def test_what_cannot_be_measured_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        bench_streams(bundle_path, tmp_path / "none.mp4")
    with pytest.raises(ClipstepError, match=r"1 or more; got \[1, 0\], 1, 8 and 5"):
        bench_streams(bundle_path, tmp_path / "none.mp4", streams=[1, 0], threads=1)
