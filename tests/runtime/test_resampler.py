"""The rule for timestamps: the vectors that Kotlin's tests take, and streams that are given timestamps."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, Prediction, StepModel
from clipstep.runtime.resampler import Resampler

VECTORS = json.loads((Path(__file__).parents[2] / "runtime/kotlin/src/test/resources/resampler.json").read_text())
FRAMES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors_by_hand(vector: dict) -> None:  # type: ignore[type-arg]
    resampler = Resampler(vector["fps"], vector["longest"])
    copies, restarts = [], []
    for index, time in enumerate(vector["milliseconds"]):
        copies.append(resampler.copies(time / 1000))
        restarts += [index] * resampler.restarted
    assert (copies, restarts) == (vector["copies"], vector["restarts"])


def test_of_a_rate_that_is_nearly_the_same_one_frame_of_a_thousand_is_left_out() -> None:
    resampler = Resampler(29.97, 16)
    assert sum(resampler.copies(index / 30) for index in range(1001)) == 1000


def pushed(model: StepModel, frames: np.ndarray, times: list[float]) -> list[Prediction]:
    stream = model.stream()
    return [prediction for frame, time in zip(frames, times, strict=True) if (prediction := stream.push(frame, time))]


def test_twice_the_rate_gives_the_predictions_of_every_second_frame(model: StepModel) -> None:
    fps = model.interface.input.fps
    got = pushed(model, FRAMES, [10 + index / (2 * fps) for index in range(40)])
    plain = model.stream()
    expected = [prediction for frame in FRAMES[::2] if (prediction := plain.push(frame))]
    assert len(got) == len(expected) == 5
    for number, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        np.testing.assert_array_equal(ours.logits, theirs.logits)
        assert ours.span == pytest.approx((10 + 4 * number / fps, 10 + 4 * (number + 1) / fps))
        assert theirs.span == pytest.approx((4 * number / fps, 4 * (number + 1) / fps))
        assert (ours.dropped, ours.repeated, ours.frames_seen) == (4 * number + 3, 0, 4 * (number + 1))
        assert (theirs.dropped, theirs.repeated) == (0, 0)


def test_half_the_rate_gives_the_predictions_of_each_frame_twice(model: StepModel) -> None:
    """The second copy of a frame comes with the next one."""
    fps = model.interface.input.fps
    got = pushed(model, FRAMES[:11], [2 * index / fps for index in range(11)])
    plain = model.stream()
    order = [0, *(index for index in range(1, 11) for _ in range(2))]
    expected = [prediction for index in order if (prediction := plain.push(FRAMES[index]))]
    assert [prediction.repeated for prediction in got] == [2, 4, 6, 8, 10][: len(got)]
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours.logits, theirs.logits)


@pytest.mark.parametrize("jump", [9.0, -9.0])
def test_after_a_gap_or_a_jump_back_a_new_video_starts(model: StepModel, jump: float) -> None:
    fps = model.interface.input.fps
    stream = model.stream()
    for index in range(6):
        stream.push(FRAMES[index], index / fps)
    found = [stream.push(FRAMES[10 + index], 6 / fps + jump + index / fps) for index in range(4)]
    plain = model.stream()
    expected = [plain.push(FRAMES[10 + index]) for index in range(4)]
    assert stream.restarts == 1 and found[:3] == [None] * 3 and found[3] is not None and expected[3] is not None
    np.testing.assert_array_equal(found[3].logits, expected[3].logits)
    assert (found[3].step, found[3].frames_seen) == (0, 4)
    assert found[3].span[0] == pytest.approx(6 / fps + jump)


def test_a_frame_that_is_refused_leaves_the_position_as_it_was(model: StepModel) -> None:
    fps = model.interface.input.fps
    stream, plain = model.stream(), model.stream()
    for index in range(8):
        for time in (math.nan, math.inf):
            with pytest.raises(ClipstepError, match="a timestamp must be a finite number of seconds; got"):
                stream.push(FRAMES[index], time)
        with pytest.raises(ClipstepError, match="wrong shape or type"):
            stream.push(FRAMES[index].astype(np.float32), index / fps + 99)
        got, expected = stream.push(FRAMES[index], index / fps), plain.push(FRAMES[index])
        assert (got is None) == (expected is None)
        if got and expected:
            np.testing.assert_array_equal(got.logits, expected.logits)
    assert stream.restarts == 0


def test_a_step_that_fails_leaves_the_position_as_it_was(model: StepModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth frame is repeated, and completes a subclip."""
    fps = model.interface.input.fps
    stream, plain = model.stream(), model.stream()
    times = [0, 1 / fps, 2 / fps, 4 / fps]
    for frame, time in zip(FRAMES[:3], times, strict=False):
        stream.push(frame, time)
    with monkeypatch.context() as patched:
        patched.setattr(StepModel, "step_outputs", lambda *_: (_ for _ in ()).throw(ClipstepError("failed")))
        with pytest.raises(ClipstepError, match="failed"):
            stream.push(FRAMES[3], times[3])
    got = stream.push(FRAMES[3], times[3])
    expected = [plain.push(frame) for frame in FRAMES[:4]][3]
    assert got and expected and got.repeated == 1 and repr(stream).endswith("5 frames seen, 1 step, 1 of 4 frames waiting>")
    np.testing.assert_array_equal(got.logits, expected.logits)
