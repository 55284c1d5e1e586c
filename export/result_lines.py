"""What `clipstep export` prints of a bundle that it has written: a line for each artifact, and what its user has to know of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clipstep.export.evaluating import sensitive_layers
from clipstep.runtime.bundle import this_machine
from clipstep.runtime.bundle.manifest import Manifest
from clipstep.runtime.precision import FLOATS
from clipstep.runtime.wording import counted

if TYPE_CHECKING:  # It imports PyTorch.
    from clipstep.export.pipeline import ExportResult, WrittenArtifact

FRAME_SOURCES = {"run_sample": "the run's sample", "sample": "the sample given", "video": "the video", "synthetic": "synthetic scenes"}


def artifact_line(written: WrittenArtifact) -> str:
    """Return a line about an artifact that was written and verified."""
    a = written.artifact
    chosen = "".join(f"; {why}" for why in (a.tuning, written.note) if why)
    return (
        f"{a.file}: {a.size_bytes / 1e6:.2f} MB, {a.placement.summary()}, largest error {a.parity.max_absolute_error:.1e} "
        f"(written in {written.write_seconds:.0f} s, verified in {written.verify_seconds:.0f} s){chosen}"
    )


def result_lines(result: ExportResult) -> Iterator[str]:
    """Yield lines about a bundle that was written: warnings, notes, and where it is."""
    manifest = result.manifest
    if manifest.provenance.weights_source == "random":
        yield "a warning: the weights are random, so that its predictions mean nothing"
    yield from _average_lines(manifest)
    if result.constant_output:
        yield "a warning: the network's output is the same whatever the frames are: look at its last layers and its weights"
    yield from _chosen_output_lines(result)
    yield from _output_and_golden_lines(manifest)
    yield from (f"skipped {path}, not calibrated on: {reason}" for path, reason in result.skipped_calibration.items())
    yield from (f"a warning: {target} failed, and is not in the bundle: {error}" for target, error in result.failed.items())
    count, steps = len(manifest.artifacts), manifest.artifacts[0].parity.steps
    yield f"wrote {result.bundle}: {counted(count, 'artifact')}, verified over {steps} steps and a reset"


def _average_lines(manifest: Manifest) -> Iterator[str]:
    """Yield a line about predictions that are a mean over frames."""
    if manifest.temporal_average == "cumulative":
        yield (
            "a warning: predictions are a mean over all frames so far. On a camera that runs for long a new scene shows ever less: "
            f"export with {'--window SECONDS' if manifest.export.stream_frames else 'states that forget'}, or reset the stream now and then"
        )
    elif manifest.window_frames is not None:
        seconds = manifest.window_frames / manifest.input.fps
        yield f"predictions are the mean over the newest {manifest.window_frames} frames, {seconds:.3g} s"


def _chosen_output_lines(result: ExportResult) -> Iterator[str]:
    """Yield a line that says what the bundle has of a network that returns several values."""
    paths = result.manifest.export.network_outputs
    if not paths and not result.unused_outputs:
        return
    kept = ", ".join(f"{output.name} {output.shape}" for output in result.manifest.kept_outputs)
    parts = [f"the logits are the network's output {paths['logits']}", f"kept: {kept}" * bool(kept)]
    if result.unused_outputs:
        parts.append(f"left out: {', '.join(result.unused_outputs)}")
    yield "; ".join(filter(None, parts))


def _output_and_golden_lines(manifest: Manifest) -> Iterator[str]:
    """Yield lines about the output, if it is not logits, artifacts of lower precision, the golden frames, and the faults that they do not detect."""
    applied = {
        "probabilities": "output: probabilities, made inside the artifacts; the runtimes apply none",
        "multilabel_probabilities": "output: a probability for each class by itself, with sigmoid inside the artifacts; the runtimes apply none",
        "multilabel_logits": "output: logits of classes that do not exclude each other; the runtimes apply sigmoid",
    }
    if manifest.output_kind in applied:
        yield applied[manifest.output_kind]
    half = [artifact.file for artifact in manifest.artifacts if artifact.needs_float16]
    if half and this_machine() != "arm64":
        yield (
            f"a note: {', '.join(half)}: verified with this processor's kernels, which add up in float32; those of ARM64 add up in float16, whose "
            "errors are larger: clipstep bench --arch arm64 holds it to the bound there"
        )
    for artifact in manifest.artifacts:
        if artifact.precision not in FLOATS and artifact.accuracy is None:
            off = f"{100 * artifact.parity.max_relative_error:.2g}% of an output's range"
            asked = "" if artifact.placement.compressed_weights else "; what that costs in accuracy on labelled videos says --evaluate DATA"
            yield f"a note: {artifact.file}: off by up to {off}{asked}"
        if sensitive_layers(artifact):
            yield f"a note: {artifact.file}: rounding moves the prediction most in {sensitive_layers(artifact)}: --float32-layers"
    golden = manifest.golden
    yield f"golden steps: frames of {', then '.join(FRAME_SOURCES[source] for source in golden.frame_sources)}"
    if golden.undetected_faults:
        faults = ", ".join(golden.undetected_faults)
        yield f"a warning: faults that the golden steps do not detect, because no output moves beyond the bound: {faults}"
