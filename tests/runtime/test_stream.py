"""`Stream`: one prediction every T frames, states carried, many streams on one model."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, Prediction, StepModel
from clipstep.runtime.output_kind import OutputKind
from clipstep.runtime.resize import center_box, crop_resize

Reference = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _video(steps: int, seed: int = 0, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (steps * 4, height, width, 3), np.uint8)


def _push_all(model: StepModel, frames: np.ndarray) -> list[Prediction]:
    stream = model.stream()
    return [prediction for prediction in map(stream.push, frames) if prediction is not None]


def test_nothing_until_the_fourth_frame_then_the_formula(model: StepModel, reference: Reference) -> None:
    frames = _video(3)
    stream = model.stream()
    logits, _ = reference(frames.reshape(3, 4, 8, 8, 3))
    for index, frame in enumerate(frames):
        prediction = stream.push(frame)
        if index % 4 < 3:
            assert prediction is None
        else:
            assert prediction is not None
            assert (prediction.step, prediction.frames_seen, prediction.labels) == (index // 4, index + 1, ("red", "green", "blue"))
            np.testing.assert_allclose(prediction.logits, logits[index // 4], atol=1e-6)


def test_two_predictions_by_hand(model: StepModel) -> None:
    """Red only, m = (1, 0, 0) twice: logits 4 m - memory with memory 0.25, then 0.125 + m."""
    red = np.empty((8, 8, 8, 3), np.uint8)
    red[:] = (255, 0, 0)
    first, second = _push_all(model, red)
    np.testing.assert_allclose(first.logits, (3.75, -0.25, -0.25), atol=1e-6)
    np.testing.assert_allclose(second.logits, (4 - 1.125, -0.125, -0.125), atol=1e-6)


@pytest.mark.parametrize("end", ["reset", "flush"])
@pytest.mark.parametrize("pushed", [4, 6, 11])
def test_after_reset_or_flush_a_new_video_begins(model: StepModel, end: str, pushed: int) -> None:
    stream, frames = model.stream(), _video(2, seed=1)
    for frame in _video(3, seed=2)[:pushed]:
        stream.push(frame)
    assert getattr(stream, end)() is None
    predictions = [stream.push(frame) for frame in frames]
    fresh = _push_all(model, frames)
    for got, wanted in zip((predictions[3], predictions[7]), fresh, strict=True):
        assert got is not None and (got.step, got.frames_seen) == (wanted.step, wanted.frames_seen)
        np.testing.assert_array_equal(got.logits, wanted.logits)
    assert [index for index, prediction in enumerate(predictions) if prediction is not None] == [3, 7]


@pytest.mark.parametrize(("height", "width"), [(24, 33), (40, 17), (8, 20), (5, 6)])
def test_frames_of_another_size_are_cropped_and_resized(model: StepModel, height: int, width: int) -> None:
    frames = _video(1, 3, height, width)
    (prediction,) = _push_all(model, frames)
    small = np.stack([crop_resize(frame, center_box(height, width), 8) for frame in frames])
    np.testing.assert_allclose(prediction.logits, 4 * small.reshape(-1, 3).mean(axis=0) / 255 - 0.25, atol=1e-6)


def test_every_second_frame_is_used_when_the_manifest_says_so(
    edit_manifest: Callable[[Callable[[dict[str, Any]], Any]], Path], reference: Reference
) -> None:
    path = edit_manifest(lambda values: values["input"].update(frame_stride=2))
    frames = _video(4, seed=5)
    with StepModel.load(path) as model:
        predictions = _push_all(model, frames)
    logits, _ = reference(frames[::2].reshape(2, 4, 8, 8, 3))
    np.testing.assert_allclose([prediction.logits for prediction in predictions], logits, atol=1e-6)


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8), np.uint8), np.zeros((1, 8, 8, 3), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), None]
)
def test_what_is_not_a_frame_is_refused_and_leaves_the_stream_as_it_was(model: StepModel, frame: Any) -> None:
    frames, stream = _video(1, seed=4), model.stream()
    for good in frames[:3]:
        stream.push(good)
    with pytest.raises(ClipstepError, match=r"expected uint8 \(H, W, 3\), RGB"):
        stream.push(frame)
    prediction = stream.push(frames[3])
    assert prediction is not None and prediction.frames_seen == 4
    np.testing.assert_array_equal(prediction.logits, _push_all(model, frames)[0].logits)


def test_the_callers_frame_is_neither_written_to_nor_kept(model: StepModel) -> None:
    frames, stream = _video(1, seed=6), model.stream()
    buffer = np.empty((8, 8, 3), np.uint8)
    for frame in frames:
        buffer[:] = frame
        prediction = stream.push(buffer)
        np.testing.assert_array_equal(buffer, frame)
        buffer[:] = 0
    assert prediction is not None
    np.testing.assert_array_equal(prediction.logits, _push_all(model, frames)[0].logits)


def test_two_streams_in_turn_do_not_disturb_each_other(model: StepModel) -> None:
    videos = _video(3, seed=7), _video(3, seed=8)
    streams = model.stream(), model.stream()
    got: tuple[list[Prediction], list[Prediction]] = ([], [])
    for pair in zip(*videos, strict=True):
        for stream, frame, predictions in zip(streams, pair, got, strict=True):
            prediction = stream.push(frame)
            predictions += [prediction] if prediction else []
    for video, predictions in zip(videos, got, strict=True):
        np.testing.assert_array_equal([p.logits for p in predictions], [p.logits for p in _push_all(model, video)])


def test_streams_in_threads_of_their_own_share_a_model(model: StepModel, reference: Reference) -> None:
    videos = [_video(40, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda video: _push_all(model, video), videos))
    for video, predictions in zip(videos, results, strict=True):
        np.testing.assert_allclose([p.logits for p in predictions], reference(video.reshape(40, 4, 8, 8, 3))[0], atol=1e-5)


def test_pushing_to_a_closed_model_is_the_same_error_every_time(bundle_path: Path) -> None:
    model = StepModel.load(bundle_path)
    stream, frames = model.stream(), _video(2)
    for frame in frames[:3]:
        stream.push(frame)
    model.close()
    for frame in frames[3:5]:
        with pytest.raises(ClipstepError, match="the model is closed"):
            stream.push(frame)


@pytest.mark.parametrize("off", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_no_prediction_and_leave_the_stream_as_it_was(
    model: StepModel, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    frames = _video(2)
    expected = [prediction.logits for prediction in _push_all(model, frames)]
    stream, step = model.stream(), model.step_outputs
    monkeypatch.setattr(StepModel, "step_outputs", lambda _, *given: replace(outputs := step(*given), logits=outputs.logits + np.float32(off)))
    with pytest.raises(ClipstepError, match=f"step 0: .*gave logits that are not finite; got {off:g}"):
        for frame in frames[:4]:
            stream.push(frame)
    monkeypatch.undo()
    following = [prediction.logits for prediction in map(stream.push, frames[3:]) if prediction is not None]
    np.testing.assert_array_equal(following, expected)


def test_probabilities_and_top_by_hand() -> None:
    prediction = Prediction(0, 4, np.log(np.array([1, 6, 3], np.float32)) + 1000, ("a", "b", "c"))
    np.testing.assert_allclose(prediction.probabilities, (0.1, 0.6, 0.3), rtol=1e-4)
    assert [label for label, _ in prediction.top(2)] == ["b", "c"]
    np.testing.assert_allclose([probability for _, probability in prediction.top(9)], (0.6, 0.3, 0.1), rtol=1e-4)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("logits", (0.211942, 0.576117, 0.211942)),  # e / (e + 2)
        ("probabilities", (0, 1, 0)),
        ("multilabel_logits", (0.5, 0.731059, 0.5)),  # 1 / (1 + 1 / e)
        ("multilabel_probabilities", (0, 1, 0)),
    ],
)
def test_probabilities_of_each_kind_of_output_by_hand(output: OutputKind, expected: tuple[float, ...]) -> None:
    """And an array of one's own each time: what is written into it changes nothing."""
    prediction = Prediction(0, 4, np.array([0, 1, 0], np.float32), ("a", "b", "c"), output)
    for _ in range(2):
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
        prediction.probabilities.fill(9)
    assert prediction.top(1) == [("b", pytest.approx(expected[1], abs=1e-6))]


def test_the_sigmoid_of_very_sure_logits_is_0_and_1() -> None:
    np.testing.assert_array_equal(Prediction(0, 4, np.array([-1e4, 1e4], np.float32), ("a", "b"), "multilabel_logits").probabilities, (0, 1))


def test_a_stream_follows_what_the_manifest_says_of_the_output(edit_manifest: Callable[..., Path]) -> None:
    """White frames: the artifact gives 4 - 0.25, whatever that is called."""
    for output, expected in (("logits", 1 / 3), ("probabilities", 3.75), ("multilabel_logits", 1 / (1 + np.exp(-3.75)))):
        with StepModel.load(edit_manifest(lambda values, output=output: values.update(output_kind=output))) as model:
            stream = model.stream()
            prediction = [stream.push(np.full((8, 8, 3), 255, np.uint8)) for _ in range(4)][-1]
        assert prediction is not None
        np.testing.assert_allclose(prediction.probabilities, [expected] * 3, rtol=1e-5)


def test_smoothing_keeps_its_share_of_the_probabilities_before(model: StepModel) -> None:
    """By hand: three predictions of a stream that keeps 0.75, of the logits of one that keeps none; anew after a reset. Nobody can change them."""
    frames = _video(3, seed=5)
    plain, stream = _push_all(model, frames), model.stream(smoothing=0.75)
    for _ in range(2):
        kept = plain[0].probabilities
        for got, wanted in zip(filter(None, map(stream.push, frames)), plain, strict=True):
            kept = 0.75 * kept + 0.25 * wanted.probabilities
            np.testing.assert_allclose(got.probabilities, kept, atol=1e-6)
            np.testing.assert_array_equal(got.logits, wanted.logits)
            assert got.top(1)[0][1] == pytest.approx(kept.max(), abs=1e-6)
            got.probabilities[:] = 7
        stream.reset()


@pytest.mark.parametrize("smoothing", [-0.1, 1, float("nan")])
def test_smoothing_out_of_range_is_refused(model: StepModel, smoothing: float) -> None:
    with pytest.raises(ClipstepError, match=r"smoothing is out of range; got .*; expected 0 to below 1"):
        model.stream(smoothing=smoothing)


def test_a_prediction_says_how_long_its_frames_took(model: StepModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 2 ms whenever it is read: each of four pushes takes that long, and a failed one does not count."""
    now = count(step=0.002)
    monkeypatch.setattr("clipstep.runtime.stream.time", SimpleNamespace(perf_counter=lambda: next(now)))
    stream, frames = model.stream(), _video(2)
    for frame in frames[:3]:
        stream.push(frame)
    with pytest.raises(ClipstepError):
        stream.push(frames[0].astype(float))
    first, second = stream.push(frames[3]), [stream.push(frame) for frame in frames[4:]][-1]
    assert first is not None and first.milliseconds == pytest.approx(8)
    assert second is not None and second.milliseconds == pytest.approx(8)


def test_a_repeated_frame_is_resized_once_and_one_that_is_left_out_never(model: StepModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """At half the model's rate each frame is used twice, at twice the rate every second one."""
    seen: list[int] = []

    def counted(frame: np.ndarray, *about: Any) -> np.ndarray:
        seen.append(int(frame[0, 0, 0]))
        return crop_resize(frame, *about)

    monkeypatch.setattr("clipstep.runtime.stream.crop_resize", counted)
    fps = model.interface.input.fps
    slow, fast = model.stream(), model.stream()
    for number in range(4):
        slow.push(np.full((9, 12, 3), number, np.uint8), number * 2 / fps)
    assert seen == [0, 1, 2, 3] and "7 frames seen" in repr(slow)
    seen.clear()
    for number in range(4):
        fast.push(np.full((9, 12, 3), number, np.uint8), number / 2 / fps)
    assert seen == [0, 2]
