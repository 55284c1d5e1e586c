"""The repr of public objects is short, and the options' choices are those of the code."""

from pathlib import Path

import pytest

from clipstep.benchmarks.records import ColdStart, Configuration, Counts, InstructionRecord, Record, this_device
from clipstep.export import choices
from clipstep.export.targets import TARGETS
from clipstep.export.targets.coreml import MACOS
from clipstep.runtime import Bundle, GoldenSteps, StepModel
from clipstep.training.choices import ARCHITECTURES, HOME, INPUTS, LOSSES, PRESETS
from clipstep.training.config import TrainingConfig
from clipstep.training.models import ARCHITECTURES as NETWORKS
from clipstep.training.models import HOME as HOME_NETWORK
from clipstep.training.models import PRESETS as STRIDES
from clipstep.training.run import Run

CONFIGURATION = Configuration(name="step.onnx", target="onnx", form="lowered", precision="float32", engine="onnxruntime", threads=2, file="step.onnx")


def test_the_repr_of_a_bundles_objects_is_short(bundle: Bundle, golden: GoldenSteps, run: Run, bundle_path: Path) -> None:
    files = "step.onnx, step.pte, step-float32.mlpackage, step-float16.mlpackage"
    facts = f"4 frames of 32x32 a step, {len(bundle.manifest.states)} states, 3 labels"
    assert repr(bundle.manifest) == str(bundle.manifest) == f"<Manifest small: {facts}; {files}>"
    assert repr(bundle.manifest.interface("uint8")) == f"<Interface small: {facts}>"
    assert repr(bundle) == f"<Bundle small at {bundle_path}: {files}>"
    assert repr(golden).startswith("<GoldenSteps: 16 on 5 subclips; states: ") and "slow_buffer " in repr(golden) and len(repr(golden)) < 300
    assert repr(run) == "<Run of slowfast_causal_shufflenet: 4 frames of 32x32 a subclip, 3 classes>"
    with StepModel.load(bundle) as model:
        assert repr(model).startswith("<StepModel small: ") and len(repr(model)) < 300
        assert len(repr(model.stream())) < 300


def test_the_repr_of_a_record_has_its_median_and_not_all_its_steps() -> None:
    about = {"bundle": "small.clipstep", "manifest_sha256": "a", "artifact_sha256": "b", "configuration": CONFIGURATION, "tool_versions": {}}
    timed = Record(
        **about,
        cold_start=ColdStart(load_s=0, first_step_ms=1, threads_used=1, largest_error=0),
        device=this_device(),
        placement={},
        not_delegated=(),
        file_bytes=1,
        subclip_s=0.64,
        peak_memory_bytes=1,
        memory_before_load_bytes=1,
        step_ms=(1.0, 2.0, 9.0) * 1000,
    )
    assert repr(timed) == str(timed) == "<Record small.clipstep: step.onnx in onnxruntime, threads 2: 2.00 ms, the median of 3000 steps>"
    steps = tuple(Counts(instructions=count, vector_fmas=1, loads=1, stores=1) for count in (10**6, 3 * 10**6, 2 * 10**6))
    counted = InstructionRecord(
        **about, emulator="qemu", cpu_model="a76", file_bytes=1, needed_multiply_accumulates=1, largest_error=0, first_step=steps[0], steps=steps
    )
    assert repr(counted) == "<InstructionRecord small.clipstep: step.onnx in onnxruntime on arm64: 2.0 M, the median of 3 steps>"


def test_the_choices_of_train_are_what_can_be_trained() -> None:
    assert list(ARCHITECTURES) == list(NETWORKS) and HOME == HOME_NETWORK and list(PRESETS) == list(STRIDES)
    for loss in LOSSES:
        assert TrainingConfig(loss=loss).loss == loss
    assert set(INPUTS) == {"rgb", "flow"}


def test_the_choices_of_export_are_what_the_targets_take() -> None:
    assert list(choices.TARGETS) == list(TARGETS)
    every = list(TARGETS.values())
    assert set(choices.FORMS) == {"auto", *(form for target in every for form in target.forms)}
    assert set(choices.PLATFORMS) == {"any", *(platform for target in every for platform in target.platforms)}
    assert set(choices.INPUT_DTYPES) == {"auto", *(dtype for target in every for dtype in target.input_dtypes)}
    assert all(version.default in version.numbers for target in every if (version := target.format_version) is not None)


@pytest.mark.parametrize("number", MACOS)
def test_every_ios_is_one_of_coremltools(number: int) -> None:
    import coremltools

    assert hasattr(coremltools.target, f"iOS{number}")
