"""On every step of test videos each artifact predicts what the eager network predicts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from clipstep.export.parity import load_for_verification
from clipstep.export.step import StepProgram
from clipstep.network.videos import read_subclips
from clipstep.runtime import Bundle
from clipstep.training.data.lists import Clip, read_data_set

FIGHT = Path(__file__).parents[2] / "training/demo/fight"
RELATIVE_BOUND = 1e-5


@pytest.mark.parametrize("file", ["step.onnx", "step.pte", "step-float32.mlpackage"])
def test_top_1_is_the_same_and_errors_are_below_1e5_relative(bundle: Bundle, program: StepProgram, file: str) -> None:
    assert _compared(bundle, program, file, read_data_set(FIGHT, 1).test[::4]) > 20


@pytest.mark.heavy
@pytest.mark.parametrize("file", ["step.onnx", "step.pte", "step-float32.mlpackage"])
def test_so_they_are_on_every_test_video(bundle: Bundle, program: StepProgram, file: str) -> None:
    assert _compared(bundle, program, file, read_data_set(FIGHT, 1).test) > 100


@torch.no_grad()
def _compared(bundle: Bundle, program: StepProgram, file: str, clips: Sequence[Clip]) -> int:
    """Compare an artifact with the eager network on every step of some videos; return the number of steps."""
    artifact = next(item for item in bundle.manifest.artifacts if item.file == file)
    engine = load_for_verification(artifact.target, bundle.path / file)
    steps = 0
    for clip in clips:
        expected = [*program.states.values()]
        got = [state.numpy() for state in expected]
        for subclip in read_subclips(clip.path, *program.frames.shape[:2]):
            logits, *expected = program.step(subclip, *expected)
            found, *got = engine.run([subclip.numpy().astype(artifact.input_dtype), *got])
            for value, wanted in zip((found, *got), (logits, *expected), strict=True):
                assert np.abs(value - wanted.numpy()).max() <= RELATIVE_BOUND * wanted.abs().max()
            assert found.argmax() == logits.argmax()
            steps += 1
    engine.close()
    return steps


@torch.no_grad()
def test_a_wrong_step_exceeds_the_bound(bundle: Bundle, program: StepProgram) -> None:
    """A state that is one step too early gives an error above the bound."""
    engine = load_for_verification("onnx", bundle.path / "step.onnx")
    first, second = read_subclips(read_data_set(FIGHT, 1).test[0].path, *program.frames.shape[:2])[:2]
    initial = [*program.states.values()]
    _, *states = program.step(first, *initial)
    logits, *_ = program.step(second, *states)
    found, *_ = engine.run([second.numpy(), *(state.numpy() for state in initial)])
    assert np.abs(found - logits.numpy()).max() > RELATIVE_BOUND * logits.abs().max()
