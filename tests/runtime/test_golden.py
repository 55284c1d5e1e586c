"""The bound of the golden steps by hand, what a file of golden steps must hold, and what synthetic frames show."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clipstep.runtime import ClipstepError, GoldenSteps, ParityError, StepModel, check_golden
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Flush, Input, Interface
from clipstep.runtime.golden import BOUNDS, scale_of
from clipstep.runtime.synthetic_frames import synthetic_subclips

FRAMES = np.arange(4 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(4, 2, 4, 4, 3)


class _Recorded:
    """An engine that gives rows of logits in turn, the first again after them."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = iter([*rows, rows[0]])

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [next(self._rows)[None]]

    def close(self) -> None: ...


def _check(reference: Any, computed: Any, precision: str = "float32") -> float:
    wanted, got = (np.asarray(values, np.float32) for values in (reference, computed))
    labels = tuple(map(str, range(wanted.shape[1])))
    spec = Input(shape=(2, 4, 4, 3), dtype="uint8", mean=(0, 0, 0), std=(1, 1, 1), fps=25)
    interface = Interface(name="rows", input=spec, states=(), outputs=("logits",), labels=labels)
    return check_golden(StepModel(interface, _Recorded(got), "rows"), GoldenSteps(FRAMES, wanted, {}), precision).relative


SMALL = np.array([[0.001, 0.004], [0.002, 0.003], [0.0015, 0.001], [0.003, 0.002]], np.float32)
"""A range of 0.003."""


def test_small_logits_that_are_half_as_large_again_are_off() -> None:
    """The error of 2e-5 was below the bound of old, 1e-4 of at least 1, wherever logits are small enough."""
    with pytest.raises(ParityError, match=r"logits is off at step 0; got an error of 2e-05; expected at most 3e-09"):
        _check(SMALL / 100, SMALL / 100 * 1.5)


def test_the_bound_is_a_share_of_the_range_over_all_steps() -> None:
    moved = SMALL + np.float32(0.9e-4 * 0.003)
    assert _check(SMALL, moved) == pytest.approx(0.9e-4, rel=0.01)
    with pytest.raises(ParityError, match="expected at most 3e-07"):
        _check(SMALL, SMALL + np.float32(1.1e-4 * 0.003))


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([[1, 3], [2, 7]], 6),
        ([[-1, 1]], 2),
        ([[100, 100.5]], 100.5 / 20),  # A float32 holds nothing finer of such numbers.
        ([[-4, -4], [-4, -4]], 0.2),  # Constant.
        ([[0, 0]], 0.01),
    ],
)
def test_scales_by_hand(values: Any, scale: float) -> None:
    assert scale_of(np.array(values, np.float32)) == pytest.approx(scale)


def test_the_scale_of_flushed_videos_is_theirs_and_that_of_the_steps_stays() -> None:
    """A stream that predicts nothing before the end of a short video has zeros as the logits of its steps."""
    subclips, nothing = np.zeros((3, 1, 4, 4, 3), np.uint8), np.zeros((3, 2), np.float32)
    golden = GoldenSteps(subclips, nothing, {}, {3: np.array([0.5, -0.25], np.float32)})
    assert (golden.flushed_scale(), golden.scale("logits")) == (0.75, 0.01)
    larger = GoldenSteps(subclips, nothing + np.array([0, 2], np.float32), {}, golden.flushed)
    assert larger.flushed_scale() == larger.scale("logits") == 2


def test_an_output_that_is_constant_or_zero_has_a_bound_too() -> None:
    for value, largest in ((4.0, 2e-5), (0.0, 1e-6)):
        constant = np.full((4, 2), value, np.float32)
        assert _check(constant, constant + np.float32(0.9 * largest)) <= BOUNDS["float32"]
        with pytest.raises(ParityError, match="is off"):
            _check(constant, constant + np.float32(1.2 * largest))


def test_float16_of_a_softmax_over_400_classes_is_bound_by_its_own_range() -> None:
    """Of old an error of 0.05 passed, which is twenty times the largest probability."""
    probabilities = np.random.default_rng(0).uniform(0.002, 0.003, (4, 400))
    with pytest.raises(ParityError, match=r"is off at step 0; got an error of 5e-05; expected at most 2e-05"):
        _check(probabilities, probabilities + 5e-5, "float16")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_named(value: float) -> None:
    computed = SMALL.copy()
    computed[2, 1] = value
    with pytest.raises(ParityError, match=rf"logits is not finite at step 2; got {value}; expected numbers"):
        _check(SMALL, computed)


def test_outputs_of_another_shape_are_not_stretched() -> None:
    with pytest.raises(ClipstepError, match=r"another output than the manifest says; got logits float32 \(1, 1\); expected logits float32 \(1, 2\)"):
        _check(np.ones((4, 2)), np.ones((4, 1)))


# What a file of golden steps must hold.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("logits"), "got no logits"),
        (lambda t: t.pop("states.memory"), r"got no states\.memory"),
        (lambda t: t.update(logits=t["logits"].astype(np.float64)), r"got logits float64 \(3, 3\); expected logits float32 \(steps, 3\)"),
        (lambda t: t.update(logits=t["logits"][:, :2]), r"got logits float32 \(3, 2\)"),
        (lambda t: t.update(logits=t["logits"][:0]), "got 0 steps on 3 subclips, 3 with states"),
        (lambda t: t.update(subclips=t["subclips"][:0]), "got 3 steps on 0 subclips"),
        (lambda t: t.update(subclips=t["subclips"].astype(np.float32)), "got subclips float32"),
        (lambda t: t.update(subclips=t["subclips"][0]), r"got subclips uint8 \(4, 8, 8, 3\); expected subclips uint8 \(steps, 4, 8, 8, 3\)"),
        (lambda t: t.update({"states.memory": t["states.memory"][:, 0]}), r"got states\.memory float32 \(3, 3\)"),
        (lambda t: t.update({"states.memory": np.repeat(t["states.memory"], 2, axis=0)}), "6 with states"),
        (lambda t: t["states.memory"].fill(np.inf), r"a value in states\.memory that is not finite"),
        (lambda t: t["logits"].fill(np.nan), "a value in logits that is not finite"),
        (lambda t: t.update(flushed=t["logits"][:1]), "got no flushed_after"),
        (lambda t: t.update(flushed_after=np.array([1])), "got no flushed"),
        (lambda t: t.update(flushed=t["logits"][:2], flushed_after=np.array([1])), r"got flushed \(2, 3\) and flushed_after int64 \(1,\)"),
        (lambda t: t.update(flushed=t["logits"][:2], flushed_after=np.array([1, 1])), "which do not fit each other"),
        (lambda t: t.update(flushed=t["logits"][:0], flushed_after=np.array([], np.int64)), "which do not fit each other"),
        (lambda t: t.update(flushed=t["logits"][:1], flushed_after=np.array([1.0])), "flushed_after float64"),
        (lambda t: t.update(flushed=t["logits"][:1], flushed_after=np.array([1])), "got logits of flushed videos; expected none"),
    ],
)
def test_a_file_of_other_golden_steps_is_refused(
    change: Callable[[dict[str, np.ndarray]], Any], message: str, copied_bundle: Path, edit_golden: Callable[..., Any]
) -> None:
    with pytest.raises(ClipstepError, match=rf"golden\.safetensors: .*{message}.*export it again"):
        GoldenSteps.of(edit_golden(change))


@pytest.mark.parametrize(
    ("flushed", "message"),
    [
        ({4: np.zeros(3, np.float32)}, "got flushes after 4 steps; expected after 2 to 3"),
        ({1: np.zeros(3, np.float32)}, "got flushes after 1 steps; expected after 2 to 3"),
        ({2: np.zeros(4, np.float32)}, r"got flushed float32 \(1, 4\)"),
        ({2: np.full(3, np.nan, np.float32), 3: np.zeros(3, np.float32)}, "a value in flushed that is not finite"),
    ],
)
def test_flushed_videos_that_are_none_of_these_steps_are_refused(flushed: dict[int, np.ndarray], message: str, bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    interface = bundle.manifest.model_copy(update={"flush": Flush(state="memory", steps=1, min_frames=5)})
    with pytest.raises(ClipstepError, match=message):
        replace(GoldenSteps.of(bundle), flushed=flushed).check(interface)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_refused(content: bytes, edit_golden: Callable[..., Any]) -> None:
    with pytest.raises(ClipstepError, match=r"golden\.safetensors: cannot be read.*expected golden steps"):
        GoldenSteps.of(edit_golden(None, content or b" "))


@pytest.fixture
def edit_golden(copied_bundle: Path) -> Callable[..., Any]:
    """`edit_golden(change)` opens a copy of the bundle whose golden tensors were changed, with hashes that fit."""
    from clipstep.runtime.bundle import MANIFEST, Bundle, tree_sha256, tree_size
    from clipstep.runtime.bundle.manifest import Manifest

    def edit(change: Callable[[dict[str, np.ndarray]], Any] | None, content: bytes = b"") -> Bundle:
        file = copied_bundle / "golden.safetensors"
        if change is None:
            file.write_bytes(content)
        else:
            tensors = {name: value.copy() for name, value in load_file(file).items()}
            change(tensors)
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file)
        manifest = Manifest.model_validate_json((copied_bundle / MANIFEST).read_text())
        golden = manifest.golden.model_copy(update={"sha256": tree_sha256(file), "size_bytes": tree_size(file)})
        (copied_bundle / MANIFEST).write_text(manifest.model_copy(update={"golden": golden}).text())
        return Bundle.open(copied_bundle)

    return edit


# Synthetic frames.


def test_synthetic_scenes_differ_in_brightness_contrast_colour_and_motion() -> None:
    """Where noise has means within 1 of each other, scenes span 60 levels and more."""
    scenes = synthetic_subclips(8, 16, 32, 32).astype(float)
    means, stds = scenes.mean(axis=(1, 2, 3)), scenes.std(axis=(1, 2, 3))
    assert np.ptp(means, axis=0).min() > 60 and np.ptp(stds.mean(axis=1)) > 10
    assert abs(means[:, 0] - means[:, 2]).max() > 40  # Red and blue.
    assert all(abs(scene[1:] - scene[:-1]).mean() > 3 for scene in scenes)  # Something moves.
    for other in (scenes[..., ::-1], scenes.swapaxes(2, 3), scenes[:, ::-1], scenes[:, :, ::-1]):
        assert all(abs(a - b).mean() > 5 for a, b in zip(scenes, other, strict=True))


def test_synthetic_scenes_are_the_same_each_time_and_of_any_shape() -> None:
    np.testing.assert_array_equal(synthetic_subclips(2, 4, 8, 8), synthetic_subclips(2, 4, 8, 8))
    assert synthetic_subclips(1, 1, 7, 5, 2).shape == (1, 1, 7, 5, 2)
