"""Memory of a long stream."""

from pathlib import Path

import pytest

from clipstep.benchmarks.latency import Worker, configurations_of
from clipstep.runtime.bundle import Bundle

MINUTES, FPS = 10, 25


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("executorch", marks=pytest.mark.heavy)])
def test_ten_minutes_of_video_take_no_more_memory_than_the_first(bundle_path: Path, engine: str) -> None:
    bundle = Bundle.open(bundle_path)
    steps_a_minute = 60 * FPS // bundle.manifest.input.shape[0]
    (configuration,) = (configuration for configuration in configurations_of(bundle, None, 1) if configuration.engine == engine)
    with Worker(configuration, bundle, None) as worker:
        worker.turn(steps_a_minute, counted=True)
        after_one = worker.peak_memory_bytes
        worker.turn((MINUTES - 1) * steps_a_minute, counted=True)
    assert after_one > 0
    assert worker.peak_memory_bytes - after_one < 2**20
