"""An export: traces the step, records golden steps, writes and verifies each artifact, and writes the manifest."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from clipstep.export.calibration import calibration_of
from clipstep.export.choosing import choose_each
from clipstep.export.contract import too_large
from clipstep.export.evaluating import EXACT, EvaluatedArtifacts, check_accuracy_drop, evaluation_of
from clipstep.export.explained import explained
from clipstep.export.golden_faults import record_assessed_golden
from clipstep.export.golden_steps import check_steps
from clipstep.export.interface import interface_of
from clipstep.export.interrupts import interruptible, stopping
from clipstep.export.manifest import artifact_of, manifest_of
from clipstep.export.options import DEFAULT_OPTIONS, ExportOptions
from clipstep.export.output_kind import infer_output_kind
from clipstep.export.parity import check_artifact
from clipstep.export.step import program_of
from clipstep.export.stream.adapt import window_frames
from clipstep.export.targets import TARGETS
from clipstep.export.targets.target import ANY, Target
from clipstep.export.turns import one_at_a_time
from clipstep.export.variants import ContextFactory, Graphs, VariantWriter, variants_of
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.bundle import MANIFEST
from clipstep.runtime.bundle.manifest import Artifact, Interface, Manifest, MeasuredVariant
from clipstep.runtime.command_line.terminal import ProgressReporter, no_progress
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_folder
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.filesystem.overwrite import BUNDLE, check_overwrite
from clipstep.runtime.golden import GOLDEN_FILE

REPORT_IT = "please report it, with what CLIPSTEP_DEBUG=1 shows"
OTHER_TARGETS = f"export the other targets, or let it keep going without this one; {REPORT_IT}"


@dataclass(frozen=True)
class WrittenArtifact:
    """One artifact that was written and verified, and how long each took in seconds."""

    artifact: Artifact
    write_seconds: float
    verify_seconds: float
    tried: tuple[MeasuredVariant, ...] = ()
    """What was measured of each of its variants, if the options say to tune."""
    note: str | None = None
    """Why it is another variant than the default one, or than the cheapest."""


@dataclass(frozen=True)
class ExportResult:
    """A bundle that was written and verified."""

    bundle: Path
    """Its folder."""
    manifest: Manifest
    """What the bundle says of the network and its artifacts: their files, sizes, placement and largest errors."""
    constant_output: bool
    """Whether the output is the same in all golden steps although their frames differ: the weights or the last layers may be wrong."""
    failed: Mapping[str, ClipstepError] = field(default_factory=dict)
    """The targets that are not in the bundle because writing or verifying one of their artifacts failed, each with its error. Empty unless the
    options say to keep going."""
    unused_outputs: tuple[str, ...] = ()
    """The values that the network returns beside its logits and states and that the bundle does not have, each with its shape."""
    evaluated: EvaluatedArtifacts | None = None
    """What the evaluation on labelled videos found, if the options ask for one."""
    skipped_calibration: Mapping[str, str] = field(default_factory=dict)
    """The videos in folders of `ExportOptions.calibration` that could not be used, such as those that are too short, each with the reason."""

    def check_whole(self) -> None:
        """Check that no target failed.

        Raises:
            ClipstepError: the error of the first target that did.
        """
        for error in self.failed.values():
            raise error


@one_at_a_time()
def export_network(
    spec: NetworkSpec,
    out: Path | str,
    options: ExportOptions = DEFAULT_OPTIONS,
    report: Callable[[WrittenArtifact], object] = lambda _: None,
    library_context: ContextFactory = nullcontext,
    *,
    force: bool = False,
    progress: ProgressReporter = no_progress,
) -> ExportResult:
    """Export a network as a bundle of verified artifacts, which is written whole or not at all. Calls of several threads take turns.

    Args:
        spec: the network; `network_of_module`, `network_of_factory` and `network_of_run` make one.
        out: the folder to write, `NAME.clipstep`.
        options: which artifacts are written, and how.
        report: called with each artifact once it is written and verified.
        library_context: returns the context in which converters and engines run; they print to the process' own streams unless it silences them.
        force: replace a bundle at `out`, once the new one is whole.
        progress: returns the context in which a stage runs, given the stage's name; by default nothing is shown.

    Raises:
        ClipstepError: the network breaks the step contract or cannot be lowered, no target can be written and verified (or, if `options.keep_going`
            is false, one of them cannot), `out` exists and is not a bundle to replace, or another process is writing there; or the labelled videos of
            `options.evaluate` do not fit the network, or an artifact's accuracy falls by more than `options.max_accuracy_drop`.

    Example:
        ```python
        spec = network_of_run(Path("runs/fight"))
        result = export_network(spec, "fight.clipstep", ExportOptions(targets=("onnx",)))
        ```
    """
    out = Path(out)
    with write_lock(out), interruptible() as stop:
        return _export(spec, out, options, report, library_context, force=force, progress=stopping(progress, stop))


def _export(
    spec: NetworkSpec,
    out: Path,
    options: ExportOptions,
    report: Callable[[WrittenArtifact], object],
    library_context: ContextFactory,
    *,
    force: bool,
    progress: ProgressReporter,
) -> ExportResult:
    check_overwrite(out, BUNDLE, force=force)
    evaluate = None
    if options.evaluate is not None:
        with progress("reading the lists of labelled videos", True):
            evaluate = evaluation_of(options.evaluate, spec, every_platform=options.tune is not None)
    calibration = calibration_of(spec, options)
    if not options.keep_going or len(options.targets) == 1:  # Otherwise the others are written.
        _raise({name: error for name in options.targets if (error := too_large(spec.module, name)) is not None})
    window = window_frames(options.window, spec.fps, options.stream) if options.window is not None and options.stream is not None else None
    with progress("tracing the network", False), explained("the network cannot be traced", REPORT_IT):
        program = replace(
            program_of(spec, options.stream, window, asked=options.asked),
            calibration=calibration.videos,
            calibration_percentile=options.calibration_percentile,
            correct_biases=options.correct_biases,
        )
        if options.output_kind is not None:
            with torch.no_grad():
                infer_output_kind(options.output_kind, program, program.step(*program.inputs)[0].numpy())
        if options.input_dtype == "uint8" and spec.input.dtype == "float32":
            raise ClipstepError("--input uint8 is not for this network", got=f"{spec.input.kind} of float32", expected="--input float32, or auto")
        given = replace(program, frames=program.frames.float()) if options.input_dtype == "float32" else program
        graphs = Graphs(given)
        with library_context():
            _lower_first(graphs, options)
    subclips = program.subclips(spec.sample.flatten(0, 1))
    with progress("recording golden steps", False), explained("golden steps cannot be recorded", REPORT_IT):
        recorded = record_assessed_golden(program, subclips, spec.sample_source)
    golden = recorded.golden
    if options.stream is not None:
        with progress("checking the stream against the clip network", False):
            check_steps(program, subclips)
    with explained("the network cannot be described", REPORT_IT):
        output = infer_output_kind(options.output_kind, program, golden.logits)
        interface = interface_of(spec, program, out.name.removesuffix(".clipstep"), output)
    writer = VariantWriter(given, golden, options, library_context, graphs)
    with atomic_folder(out, replace=force) as folder:
        written, failed = _write_targets(writer, interface, folder, progress, report)
        with progress(f"writing {MANIFEST}", True), explained("the manifest cannot be written", REPORT_IT):
            golden.save(folder / GOLDEN_FILE)
            artifacts = [one.artifact for one in written]
            manifest = manifest_of(spec, program, options.stream, interface, artifacts, recorded, folder / GOLDEN_FILE)
            (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
        evaluated = None
        if evaluate is not None:
            with explained("the artifacts cannot be evaluated", REPORT_IT), writer.library_context():
                evaluated = evaluate(folder, progress)
            manifest = evaluated.noted_in(manifest)
        tuned = [(artifact, one.tried) for artifact, one in zip(manifest.artifacts, written, strict=True) if one.tried]
        choices, left_out, unfit = choose_each(tuned, options.budget, options.max_accuracy_drop)
        failed |= unfit
        if not options.keep_going or len(failed) == len(options.targets):
            _raise(failed)
        for artifact in left_out:
            _remove(folder / artifact.file)
        kept = tuple(artifact for artifact in manifest.artifacts if artifact not in left_out)
        manifest = manifest.model_copy(update={"artifacts": kept, "choices": choices})
        (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
        if options.max_accuracy_drop is not None:
            check_accuracy_drop(manifest.artifacts, options.max_accuracy_drop)
    constant = bool((golden.logits == golden.logits[0]).all())
    return ExportResult(out, manifest, constant, failed, program.choice.unused, evaluated, calibration.skipped)


def _remove(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def _lower_first(graphs: Graphs, options: ExportOptions) -> None:
    """Lower the network for one of the targets, before the golden steps are recorded, so that one that cannot be lowered is refused early.

    Raises:
        ClipstepError: it cannot be lowered for any of them or, unless `options.keep_going`, for the first.
    """
    failed: dict[str, ClipstepError] = {}
    for name in options.targets:
        target = TARGETS[name]
        platform = options.platforms[0] if target.platforms else ANY
        try:
            with explained("the network cannot be lowered", REPORT_IT):
                graphs.of(variants_of(target, options.form, platform)[0])
            return
        except ClipstepError as error:
            failed[name] = error
            if not options.keep_going:
                raise
    _raise(failed)


def _write_targets(
    writer: VariantWriter, interface: Interface, folder: Path, progress: ProgressReporter, report: Callable[[WrittenArtifact], object]
) -> tuple[list[WrittenArtifact], dict[str, ClipstepError]]:
    """Write and verify the artifacts of each target.

    Returns:
        The artifacts, and the errors of the targets that failed, whose files are removed again.

    Raises:
        ClipstepError: no target was written or, unless `options.keep_going`, one of them was not.
    """
    options = writer.options
    artifacts: list[WrittenArtifact] = []
    failed = {name: error for name in options.targets if (error := too_large(writer.program.step, name)) is not None}
    for name in options.targets:
        if not options.keep_going or len(failed) == len(options.targets):
            _raise(failed)
        if name not in failed:
            outcome = _write_target(TARGETS[name], writer, interface, folder, progress, report)
            artifacts += outcome if isinstance(outcome, list) else []
            failed |= {} if isinstance(outcome, list) else {name: outcome}
    if not options.keep_going or len(failed) == len(options.targets):
        _raise(failed)
    return artifacts, failed


def _raise(failed: Mapping[str, ClipstepError]) -> None:
    """Raise the error of the only target that failed, or one that says what each failed with."""
    reasons = {name: str(error) for name, error in failed.items()}
    if len(set(reasons.values())) > 1:
        raise ClipstepError("no target could be written", got="; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    for error in failed.values():
        raise error


def _write_target(
    target: Target,
    writer: VariantWriter,
    interface: Interface,
    folder: Path,
    progress: ProgressReporter,
    report: Callable[[WrittenArtifact], object],
) -> list[WrittenArtifact] | ClipstepError:
    """Write and verify the artifacts of a target; if one fails, remove the files of all and return its error."""
    before, artifacts = set(folder.iterdir()), list[WrittenArtifact]()
    writing = _write_artifacts(target, writer, interface, folder, progress)
    while True:
        try:
            written = next(writing, None)
        except ClipstepError as error:
            for file in set(folder.iterdir()) - before:
                _remove(file)
            return error
        if written is None:
            return artifacts
        artifacts.append(written)
        report(written)


def _write_artifacts(
    target: Target, writer: VariantWriter, interface: Interface, folder: Path, progress: ProgressReporter
) -> Iterator[WrittenArtifact]:
    options = writer.options
    automatic = target.input_dtypes[0] if interface.input.dtype == "uint8" else "float32"
    input_dtype = automatic if options.input_dtype == "auto" else options.input_dtype
    embedded = interface.model_copy(update={"input": interface.input.model_copy(update={"dtype": input_dtype})})
    for platform in options.platforms if target.platforms else (ANY,):
        exact_fits = False
        for precision in options.precisions_of(target.name):
            path = folder / target.file_name(precision, platform)
            started = time.monotonic()
            with progress(f"writing {path.name}", True), explained(f"{path.name} cannot be written", OTHER_TARGETS):
                written = writer.write(target, platform, precision, embedded, path, exact_fits=exact_fits)
            exact_fits = exact_fits or (precision == EXACT and written.fits)
            verifying = time.monotonic()
            with progress(f"verifying {path.name}", True), explained(f"{path.name} cannot be verified", OTHER_TARGETS), writer.library_context():
                errors = check_artifact(target.name, path, precision, embedded, writer.golden)
            verified = time.monotonic()
            with explained(f"{path.name} cannot be described", OTHER_TARGETS):
                artifact = artifact_of(target, platform, precision, input_dtype, path, written, errors)
            yield WrittenArtifact(artifact, verifying - started, verified - verifying, written.tried, written.note)
