"""`StepModel`: pure steps of exactly the shapes and types that the manifest names; nothing falls back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, GoldenSteps, StepModel, check_golden
from clipstep.runtime.cores import available_cores

Reference = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
FRAMES = np.random.default_rng(2).integers(0, 256, (5, 4, 8, 8, 3), np.uint8)


def test_steps_with_the_states_passed_on_are_the_formula(model: StepModel, reference: Reference) -> None:
    states = model.initial_states()
    np.testing.assert_array_equal(states, [[[0.25, 0.25, 0.25]]])
    for subclip, logits, memory in zip(FRAMES, *reference(FRAMES), strict=True):
        got, states = model.step(subclip, states)
        assert got.shape == (3,) and got.dtype == np.float32
        np.testing.assert_allclose(got, logits, atol=1e-6)
        np.testing.assert_allclose(states, [memory[None]], atol=1e-6)


def test_one_step_by_hand(model: StepModel) -> None:
    """White red, black green, blue 51 of 255: m = (1, 0, 0.2); logits 4 m - 0.25; memory 0.125 + m."""
    frames = np.empty((4, 8, 8, 3), np.uint8)
    frames[:] = (255, 0, 51)
    logits, (memory,) = model.step(frames, model.initial_states())
    np.testing.assert_allclose(logits, (3.75, -0.25, 0.55), atol=1e-6)
    np.testing.assert_allclose(memory, [(1.125, 0.125, 0.325)], atol=1e-6)


def test_inputs_are_not_written_to(model: StepModel) -> None:
    frames, states = FRAMES[0].copy(), model.initial_states()
    _, following = model.step(frames, states)
    model.step(frames, following)
    np.testing.assert_array_equal(frames, FRAMES[0])
    np.testing.assert_array_equal(states, np.full((1, 1, 3), 0.25))
    assert not np.array_equal(following, states)


def test_outputs_stay_as_they_were_when_the_model_goes_on(model: StepModel) -> None:
    logits, states = model.step(FRAMES[0], model.initial_states())
    kept = logits.copy(), states[0].copy()
    model.step(FRAMES[1], states)
    np.testing.assert_array_equal(logits, kept[0])
    np.testing.assert_array_equal(states[0], kept[1])


def test_frames_need_not_be_contiguous(model: StepModel) -> None:
    logits, _ = model.step(FRAMES[0, ::-1, :, ::-1], model.initial_states())
    np.testing.assert_allclose(logits, model.step(FRAMES[0], model.initial_states())[0], atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (FRAMES[0, :3], r"uint8 \(3, 8, 8, 3\)"),
        (FRAMES[0, :, :7], r"uint8 \(4, 7, 8, 3\)"),
        (FRAMES[0][None], r"uint8 \(1, 4, 8, 8, 3\)"),
        (FRAMES[0].astype(np.float32), r"float32 \(4, 8, 8, 3\)"),
        (FRAMES[0].tolist(), "list"),
    ],
)
def test_other_frames_are_refused(model: StepModel, frames: np.ndarray, got: str) -> None:
    with pytest.raises(ClipstepError, match=rf"frames .*; got {got}; expected uint8 \(4, 8, 8, 3\)"):
        model.step(frames, model.initial_states())


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "wrong number of states; got 0; expected 1"),
        ([np.zeros((1, 3), np.float32)] * 2, "wrong number of states; got 2; expected 1"),
        ([np.zeros((3,), np.float32)], r"memory has the wrong shape or type; got float32 \(3,\); expected float32 \(1, 3\)"),
        ([np.zeros((1, 3))], r"memory has the wrong shape or type; got float64 \(1, 3\); expected float32 \(1, 3\)"),
        ([None], "memory must be a numpy array; got NoneType"),
    ],
)
def test_other_states_are_refused(model: StepModel, states: list[np.ndarray], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        model.step(FRAMES[0], states)


def test_a_closed_model_says_so_and_may_be_closed_again(bundle_path: Path) -> None:
    with StepModel.load(bundle_path) as model:
        states = model.initial_states()
    model.close()
    with pytest.raises(ClipstepError, match="the model is closed; load it again"):
        model.step(FRAMES[0], states)


@pytest.mark.parametrize("threads", [0, -1, 1000])
def test_thread_counts_that_the_machine_lacks(bundle_path: Path, threads: int) -> None:
    with pytest.raises(ClipstepError, match=f"thread count not available; got {threads}; expected 1 to {available_cores()}$"):
        StepModel.load(bundle_path, threads=threads)


def test_an_unknown_engine_is_answered_with_the_known_ones(bundle_path: Path) -> None:
    with pytest.raises(ClipstepError, match="unknown engine; got tensorrt; expected one of onnxruntime, executorch"):
        StepModel.load(bundle_path, engine="tensorrt")


def test_an_engine_without_an_artifact_does_not_fall_back(bundle_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"has no float32 executorch artifact.*got onnx for any"):
        StepModel.load(bundle_path, engine="executorch")


def test_the_golden_steps_of_the_bundle_hold(model: StepModel, bundle_path: Path) -> None:
    errors = check_golden(model, GoldenSteps.load(bundle_path / "golden.safetensors", ["memory"]), "float32")
    assert errors.steps == 3 and errors.absolute < 1e-6


@pytest.mark.parametrize(
    ("logits", "memory", "message"),
    [
        (0.001, 0, r"logits is off at step 2; got an error of 0\.001"),
        (0, 0.001, r"memory is off at step 2; got an error of 0\.001"),
        (np.nan, 0, "the golden steps cannot be used; got a value in logits that is not finite"),
    ],
)
def test_golden_steps_that_differ_are_named(model: StepModel, reference: Reference, logits: float, memory: float, message: str) -> None:
    expected, memories = (values.astype(np.float32) for values in reference(FRAMES))
    expected[2, 0] += logits
    memories[2, 1] += memory
    with pytest.raises(ClipstepError, match=message):
        check_golden(model, GoldenSteps(FRAMES, expected, {"memory": memories[:, None]}), "float32")


def test_a_near_tie_may_go_either_way(model: StepModel, reference: Reference) -> None:
    """Grey gives three equal logits; the reference's favourite leads by less than twice the bound."""
    frames = np.full((2, 4, 8, 8, 3), 100, np.uint8)
    frames[1] = 250
    expected, memories = (values.astype(np.float32) for values in reference(frames))
    expected[0, 2] += 5e-5
    assert check_golden(model, GoldenSteps(frames, expected, {"memory": memories[:, None]}), "float32").absolute == pytest.approx(5e-5, rel=0.1)
