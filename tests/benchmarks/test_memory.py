"""Memory of a long stream."""

from pathlib import Path

import pytest

from clipstep.benchmarks.latency import Worker, configurations_of
from clipstep.runtime.bundle import Bundle

FPS = 25


@pytest.mark.parametrize(
    ("engine", "minutes", "is_whole"),
    [
        ("onnxruntime", 10, False),
        pytest.param("executorch", 10, False, marks=pytest.mark.heavy),
        pytest.param("onnxruntime", 60, True, marks=pytest.mark.heavy),
        pytest.param("executorch", 60, True, marks=pytest.mark.heavy),
    ],
)
def test_a_long_video_takes_no_more_memory_than_its_first_tenth(bundle_path: Path, clip: Path, engine: str, minutes: int, is_whole: bool) -> None:
    """Steps alone, or decoding and resizing too, of a clip that begins anew whenever it ends."""
    bundle = Bundle.open(bundle_path)
    steps_a_minute = 60 * FPS // bundle.manifest.input.shape[0]
    configurations = configurations_of(bundle, None, 1, video=clip if is_whole else None)
    (configuration,) = (given for given in configurations if given.engine == engine and (given.video is not None) == is_whole)
    with Worker(configuration, bundle, None) as worker:
        worker.turn(minutes * steps_a_minute // 10, counted=True)
        after_a_tenth = worker.peak_memory_bytes
        worker.turn(minutes * steps_a_minute * 9 // 10, counted=True)
    assert after_a_tenth > 0
    assert worker.peak_memory_bytes - after_a_tenth < 2**20
