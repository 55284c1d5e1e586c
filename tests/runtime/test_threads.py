"""A stream belongs to one thread at a time, and a model may be closed while others step: an error, never a wrong number or a crash."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, Prediction, StepModel
from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.engines import load_engine

FRAMES = np.random.default_rng(3).integers(0, 256, (8, 8, 8, 3), np.uint8)


class Held:
    """An engine whose steps wait until they may go on, and which can be made to fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self.fails = self.closed = False

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        self.entered.set()
        assert self.may_go_on.wait(30)
        if self.fails:
            raise ClipstepError("the engine failed")
        assert not self.closed
        return self.engine.run(inputs)

    def close(self) -> None:
        self.closed = True
        self.engine.close()


@pytest.fixture
def held(bundle_path: Path, model: StepModel) -> Iterator[tuple[StepModel, Held]]:
    """The model on an engine whose steps wait."""
    engine = Held(load_engine("onnxruntime", bundle_path / "model.onnx", 1))
    yield StepModel(model.interface, engine, "model.onnx"), engine
    engine.may_go_on.set()


def _pushed(model: StepModel, frames: Array) -> list[Prediction]:
    stream = model.stream()
    return [prediction for prediction in map(stream.push, frames) if prediction is not None]


@pytest.mark.parametrize("action", ["push", "flush", "reset"])
def test_a_stream_used_by_two_threads_at_once_is_an_error_and_stays_right(action: str, held: tuple[StepModel, Held], model: StepModel) -> None:
    slow, engine = held
    stream = slow.stream()
    for frame in FRAMES[:3]:
        stream.push(frame)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stream.push, FRAMES[3])
        assert engine.entered.wait(30)
        arguments = (FRAMES[7],) if action == "push" else ()
        with pytest.raises(ClipstepError, match=r"the stream is in use by another thread; .*model\.stream\(\)"):
            getattr(stream, action)(*arguments)
        engine.may_go_on.set()
        predictions = [first.result(), *[stream.push(frame) for frame in FRAMES[4:]]]
    expected = _pushed(model, FRAMES)
    np.testing.assert_array_equal([p.logits for p in predictions if p], [p.logits for p in expected])
    assert [p.frames_seen for p in predictions if p] == [4, 8]


def test_a_stream_may_be_handed_from_thread_to_thread(model: StepModel) -> None:
    """As asyncio.to_thread does: another thread each time, never two at once."""
    stream, predictions = model.stream(), []
    for frame in FRAMES:
        with ThreadPoolExecutor(1) as pool:
            predictions.append(pool.submit(stream.push, frame).result())
    np.testing.assert_array_equal([p.logits for p in predictions if p], [p.logits for p in _pushed(model, FRAMES)])


def test_a_step_that_fails_loses_the_last_frame_only(held: tuple[StepModel, Held], model: StepModel) -> None:
    slow, engine = held
    engine.may_go_on.set()
    stream = slow.stream()
    for frame in FRAMES[:3]:
        stream.push(frame)
    engine.fails = True
    for _ in range(2):
        with pytest.raises(ClipstepError, match="the engine failed"):
            stream.push(FRAMES[7])
    engine.fails = False
    predictions = [stream.push(frame) for frame in FRAMES[3:]]
    assert [p.frames_seen for p in predictions if p] == [4, 8]
    np.testing.assert_array_equal([p.logits for p in predictions if p], [p.logits for p in _pushed(model, FRAMES)])


def test_closing_while_another_thread_steps_lets_the_step_end(held: tuple[StepModel, Held], model: StepModel) -> None:
    slow, engine = held
    frames = FRAMES[:4]
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(slow.step, frames, slow.initial_states())
        assert engine.entered.wait(30)
        slow.close()
        with pytest.raises(ClipstepError, match="the model is closed; load it again"):
            slow.step(frames, slow.initial_states())
        assert not engine.closed
        engine.may_go_on.set()
        logits, _ = under_way.result()
    assert engine.closed
    np.testing.assert_array_equal(logits, model.step(frames, model.initial_states())[0])


def test_closing_a_model_that_many_threads_use_ends_each_with_the_same_error(bundle_path: Path) -> None:
    model = StepModel.load(bundle_path)
    started = threading.Barrier(5)

    def push_for_ever() -> str:
        stream = model.stream()
        started.wait(30)
        try:
            while True:
                stream.push(FRAMES[0])
        except ClipstepError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(push_for_ever) for _ in range(4)]
        started.wait(30)
        model.close()
        assert {end.result() for end in ends} == {"the model is closed; load it again"}


@pytest.mark.parametrize("use", [lambda model, stream: model.stream(), lambda model, stream: [stream.push(frame) for frame in FRAMES[:4]]])
def test_a_closed_model_gives_no_streams_and_no_predictions(use: Callable[..., object], bundle_path: Path) -> None:
    model = StepModel.load(bundle_path)
    stream = model.stream()
    model.close()
    with pytest.raises(ClipstepError, match="the model is closed; load it again"):
        use(model, stream)


def test_what_objects_say_of_themselves(bundle_path: Path) -> None:
    model = StepModel.load(bundle_path)
    stream = model.stream()
    (said,) = (repr(prediction) for prediction in map(stream.push, FRAMES[:5]) if prediction)
    assert repr(model) == "<StepModel colour: model.onnx (3d, for any) in onnxruntime, 1 thread; 4 frames of 8x8 a step, 1 state, 3 labels>"
    assert repr(stream) == "<Stream of colour: 5 frames seen, 1 step, 1 of 4 frames waiting>"
    assert said.startswith("<Prediction of step 0, 4 frames seen: ") and said.count(" 0.") == 3 and "array" not in said
    model.close()
    assert repr(model).endswith("; closed>")
