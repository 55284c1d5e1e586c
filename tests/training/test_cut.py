"""Parts of videos: the frames from the start to before the end, by their timestamps, in training, in tests and in the cache."""

import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from rich.console import Console

from clipstep.runtime import VideoError, read_timed_frames
from clipstep.training.data.cache import FrameCache, decode
from clipstep.training.data.encode import write_video
from clipstep.training.data.lists import Clip
from clipstep.training.data.subclips import BrokenVideo, TestVideos, TrainingVideos, Video
from clipstep.training.data.trained_on import TrainedOn
from clipstep.training.predict import predict_videos
from clipstep.training.probe import sample_subclips

STEP = 8
"""How much brighter each frame of the video is than the one before."""


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """A video of 20 frames, 10 a second, whose number N is a grey of 8 * N + 20."""
    path = tmp_path / "ramp.mp4"
    write_video(path, [np.full((32, 32, 3), STEP * number + 20, np.uint8) for number in range(20)], 10)
    return path


def _numbers(frames: Iterable[Any]) -> list[int]:
    return [round((float(np.asarray(frame).mean()) - 20) / STEP) for frame in frames]


@pytest.mark.parametrize(
    ("cut", "first", "end"),
    [((0.0, 1.0), 0, 10), ((0.5, 1.2), 5, 12), ((0.45, 1.25), 5, 13), ((1.3, math.inf), 13, 20), ((0.7, 0.8), 7, 8), ((1.5, 9.0), 15, 20)],
)
def test_frames_from_the_start_to_before_the_end(ramp: Path, cut: tuple[float, float], first: int, end: int) -> None:
    frames = list(read_timed_frames(ramp, cut=cut))
    assert _numbers(frame.image for frame in frames) == list(range(first, end))
    assert [round(frame.seconds, 3) for frame in frames] == [number / 10 for number in range(first, end)]


def test_rounding_moves_no_frame_over_an_edge(tmp_path: Path) -> None:
    """A video that begins at 2 s: its fourth frame is at 2.3 - 2.0 seconds, which is less than 0.3 in floating point."""
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), STEP * number + 20, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + 20, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert _numbers(frame.image for frame in read_timed_frames(path, cut=(0.0, 0.3))) == [0, 1, 2]
    assert _numbers(frame.image for frame in read_timed_frames(path, cut=(0.3, 0.6))) == [3, 4, 5]


def test_a_cut_is_read_in_whole_subclips(ramp: Path) -> None:
    assert _numbers(frame.image for frame in read_timed_frames(ramp, whole=4, cut=(0.5, 1.5))) == list(range(5, 13))


@pytest.mark.parametrize(("cut", "got"), [((0.5, 0.7), "2 frames from 0.5 to 0.7 s"), ((7.0, 9.0), "0 frames from 7 to 9 s")])
def test_a_cut_without_the_frames_is_too_short(ramp: Path, cut: tuple[float, float], got: str) -> None:
    with pytest.raises(VideoError, match=rf"ramp\.mp4: too short; got {got}; expected at least 4"):
        list(read_timed_frames(ramp, whole=4, cut=cut))


@pytest.mark.parametrize("cached", [False, True])
def test_training_and_test_see_the_cut_alone(ramp: Path, tmp_path: Path, cached: bool) -> None:
    clips = [Clip(ramp, 0, (0.4, 0.8)), Clip(ramp, 1, (1.2, 2.0)), Clip(ramp, 1), Clip(ramp, 0, (5.0, 6.0))]
    cache = FrameCache(tmp_path / "cache") if cached else None
    if cache is not None:
        cache.prepare([clip.path for clip in clips], 4, 32, cuts=[clip.cut for clip in clips])
    for _ in range(2):  # The second time from the cache.
        *items, broken = (TrainingVideos(clips, 4, 16, cache=cache)[0, index] for index in range(4))
        assert [_numbers(item.subclips.flatten(0, 1)) for item in items if isinstance(item, Video)] == [[4, 5, 6, 7], [*range(12, 20)], [*range(20)]]
        assert isinstance(broken, BrokenVideo) and broken.path.name == "ramp.mp4#t=5,6"
    tested = TestVideos(clips, 4, 16)[1]
    assert isinstance(tested, Video) and _numbers(tested.subclips.flatten(0, 1)) == [*range(12, 20)]
    assert _numbers(sample_subclips(clips[:1], 4, 16).flatten(0, 1)) == [4, 5, 6, 7]


def test_a_prediction_and_a_broken_part_bear_the_seconds(ramp: Path) -> None:
    clips = [Clip(ramp, 1, (0.4, 0.8)), Clip(ramp, 1, (1.9, 3.0)), Clip(ramp, 1, (0.8, 1.6))]
    console = Console(quiet=True)
    found, unusable = predict_videos(lambda subclips: torch.zeros(len(subclips), 2), clips, (4, 16, 3), None, console)
    assert [(prediction.path.name, len(prediction.probabilities)) for prediction in found] == [("ramp.mp4#t=0.4,0.8", 1), ("ramp.mp4#t=0.8,1.6", 2)]
    assert list(unusable) == [f"{ramp}#t=1.9,3"]


def test_the_stated_size_of_a_cache_is_that_of_the_cuts(ramp: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache")
    cuts = [(0.0, 0.8), (0.5, math.inf), None]
    full, _ = cache.prepare([ramp] * 3, 4, 32, cuts=cuts)
    assert full == (8 + 20 + 20) * 32 * 32 * 3  # Of an open end the whole video is the bound.
    for cut in cuts:
        np.testing.assert_array_equal(cache.read(ramp, 4, 32, cut=cut), decode(ramp, 4, 32, cut=cut))
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_what_was_trained_on_tells_parts_apart(ramp: Path) -> None:
    whole, early, late = (TrainedOn.of([clip]).contents for clip in (Clip(ramp, 0), Clip(ramp, 0, (0.0, 1.0)), Clip(ramp, 0, (1.0, 2.0))))
    assert len(whole | early | late) == 3 and TrainedOn.of([Clip(ramp, 0, (0.0, 1.0))]).contents == early
