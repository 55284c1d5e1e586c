"""A network as a verified bundle: trace, record golden steps, write each artifact and verify it."""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import fx, nn

from clipstep.export.golden_faults import record_assessed_golden
from clipstep.export.interface import interface_of
from clipstep.export.interrupts import interruptible, stopping
from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.options import USUAL, ExportOptions
from clipstep.export.output_kind import infer_output_kind
from clipstep.export.step import StepProgram, program_of
from clipstep.export.stream.adapt import window_frames
from clipstep.export.targets import TARGETS, Target
from clipstep.export.verification import check_artifact, check_steps
from clipstep.network.count import count_macs
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.bundle import MANIFEST, tree_sha256, tree_size
from clipstep.runtime.finished import BUNDLE, check_output
from clipstep.runtime.golden import GoldenSteps, bound_text
from clipstep.runtime.lock import one_writer
from clipstep.runtime.manifest import Artifact, Export, Golden, Interface, Manifest, Parity, Placement, Tuning
from clipstep.runtime.terminal import Doing, not_told
from clipstep.runtime.whole import write_whole

GOLDEN_FILE = "golden.safetensors"


@dataclass(frozen=True)
class WrittenArtifact:
    """One artifact that was written and verified, and how long each took in seconds."""

    artifact: Artifact
    write_seconds: float
    verify_seconds: float


@dataclass(frozen=True)
class ExportResult:
    """A bundle that was written and verified."""

    bundle: Path
    """Its folder."""
    manifest: Manifest
    """What it says of the network and its artifacts: their files, sizes, placement and largest errors."""
    constant_output: bool
    """Whether the output is the same in all golden steps, whose frames differ: the network is hardly what was meant."""


Around = Callable[[], AbstractContextManager[object]]
"""Gives what the converters and engines are run inside, as ``clipstep.runtime.terminal.quiet`` for a command."""
_EXPORTING = threading.RLock()


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """torch's tracing and coremltools' builder keep their state in globals."""
    with _EXPORTING:
        yield


@_one_at_a_time()
def export_network(
    spec: NetworkSpec,
    out: Path,
    options: ExportOptions = USUAL,
    report: Callable[[WrittenArtifact], object] = lambda _: None,
    around: Around = nullcontext,
    *,
    force: bool = False,
    doing: Doing = not_told,
) -> ExportResult:
    """Writes the bundle ``out`` with an artifact for each target asked for and each of its precisions, verified; whole, or not at all.

    ``report`` is called after each artifact. The converters write warnings and progress to the process' own streams, unless ``around``
    keeps them quiet. Calls of several threads take turns. Each step runs inside what ``doing`` gives for its name. A bundle that is there
    is replaced if ``force`` says so, once the new one is whole.

    Raises:
        ClipstepError: the network breaks the step contract or cannot be lowered, an artifact is not what the eager
            network computes, ``out`` exists and is not a bundle to replace, or somebody else is writing there.
    """
    with one_writer(out), interruptible() as stop:
        return _export(spec, out, options, report, around, force=force, doing=stopping(doing, stop))


def _export(
    spec: NetworkSpec, out: Path, options: ExportOptions, report: Callable[[WrittenArtifact], object], around: Around, *, force: bool, doing: Doing
) -> ExportResult:
    check_output(out, BUNDLE, force=force)
    window = window_frames(options.window, spec.fps, options.stream) if options.window is not None and options.stream is not None else None
    with doing("tracing the network", False):
        program = program_of(spec, options.stream, window)
    subclips = program.subclips(spec.sample.flatten(0, 1))
    with doing("recording golden steps", False):
        recorded = record_assessed_golden(program, subclips, spec.content)
    golden = recorded.golden
    output = infer_output_kind(options.output, program, golden.logits)
    if options.stream is not None:
        with doing("checking the stream against the clip network", False):
            check_steps(program, subclips)
    interface = interface_of(spec, program, out.name.removesuffix(".clipstep"), output)
    with write_whole(out, replace=force) as folder:
        artifacts = []
        for written in _write_artifacts(program, golden, interface, options, folder, around, doing):
            artifacts.append(written.artifact)
            report(written)
        with doing(f"writing {MANIFEST}", True):
            golden.save(folder / GOLDEN_FILE)
            manifest = Manifest(
                **interface.model_dump(),
                artifacts=tuple(artifacts),
                golden=Golden(
                    file=GOLDEN_FILE,
                    size_bytes=tree_size(folder / GOLDEN_FILE),
                    sha256=tree_sha256(folder / GOLDEN_FILE),
                    content=recorded.content,
                    undetected_faults=recorded.undetected_faults,
                ),
                provenance=spec.provenance,
                export=Export(
                    clipstep_version=version("clipstep"),
                    stream_frames=options.stream,
                    multiply_accumulates=count_macs(program.step, *program.inputs),
                ),
            )
            (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return ExportResult(out, manifest, constant_output=bool((golden.logits == golden.logits[0]).all()))


def _write_artifacts(
    program: StepProgram, golden: GoldenSteps, interface: Interface, options: ExportOptions, folder: Path, around: Around, doing: Doing
) -> Iterator[WrittenArtifact]:
    if options.input_dtype == "float32":
        program = replace(program, frames=program.frames.float())
    graph_of = _Graphs(program)
    for name in options.targets:
        target = TARGETS[name]
        input_dtype = target.input_dtypes[0] if options.input_dtype == "auto" else options.input_dtype
        embedded = interface.model_copy(update={"input": interface.input.model_copy(update={"dtype": input_dtype})})
        for platform in options.platforms if target.platforms else ("any",):
            for precision in target.precisions:
                path = _named_for(platform, folder / target.file.format(precision))
                started = time.monotonic()
                with doing(f"writing {path.name}", True):
                    variant, placement, tuning = _write_cheapest(
                        name, platform, precision, path, graph_of, program, embedded, golden, options, around
                    )
                written = time.monotonic()
                with doing(f"verifying {path.name}", True), around():
                    errors = check_artifact(name, path, precision, embedded, golden)
                verified = time.monotonic()
                artifact = Artifact.model_validate(
                    {
                        "target": name,
                        "platform": platform,
                        "form": variant.form,
                        "precision": precision,
                        "file": path.name,
                        "size_bytes": tree_size(path),
                        "sha256": tree_sha256(path),
                        "tool_versions": target.tool_versions(),
                        "placement": placement,
                        "input_dtype": input_dtype,
                        "parity": Parity(
                            reference=f"eager PyTorch {torch.__version__}, float32",
                            steps=errors.steps,
                            max_absolute_error=errors.absolute,
                            max_relative_error=errors.relative,
                            bound=bound_text(precision),
                        ),
                        "tuning": tuning,
                        "requires": target.requires(path),
                    }
                )
                yield WrittenArtifact(artifact, written - started, verified - written)


def _named_for(platform: str, path: Path) -> Path:
    return path if platform == "any" else path.with_name(f"{path.stem}-{platform}{path.suffix}")


@dataclass(frozen=True)
class _Variant:
    """One of the ways in which a target can write the same step."""

    name: str
    form: str
    profile: EngineProfile


def _variants(target: Target, form: str, platform: str) -> list[_Variant]:
    """The default one first."""
    forms = target.forms if form == "auto" else (form,)
    default = target.platforms.get(platform, next(iter(target.variants)))
    names = [default, *(name for name in target.variants if name != default)]
    lowered = [_Variant(name, "lowered", target.variants[name]) for name in names] if "lowered" in forms else []
    return [*lowered, *([_Variant("3d", "3d", target.variants[default])] if "3d" in forms else [])]


def _write_cheapest(
    target_name: str,
    platform: str,
    precision: str,
    path: Path,
    graph_of: "_Graphs",
    program: StepProgram,
    facts: Interface,
    golden: GoldenSteps,
    options: ExportOptions,
    around: Around,
) -> tuple[_Variant, Placement, Tuning | None]:
    """Writes ``path`` as the default variant or, tuned, as the cheapest of the variants that give different files."""
    target = TARGETS[target_name]
    variants = {variant.name: variant for variant in _variants(target, options.form, platform)}
    default = next(iter(variants.values()))

    def write(variant: _Variant, file: Path) -> Placement:
        with around():
            return target.write(graph_of(variant.form, variant.profile), program, precision, facts.model_dump_json(), file, options.versions)

    if options.tune is None or not target.platforms:
        return default, write(default, path), None
    with tempfile.TemporaryDirectory(prefix="clipstep-tune-") as temporary:
        files = {name: Path(temporary) / f"{name}{path.suffix}" for name in variants}
        placements = {name: write(variant, files[name]) for name, variant in variants.items()}
        different: dict[str, str] = {}
        for name, file in files.items():
            different.setdefault(tree_sha256(file), name)
        unit, measured = options.tune(platform, target_name, {name: files[name] for name in different.values()}, facts, golden)
        chosen = min(measured, key=lambda name: measured[name])
        shutil.move(files[chosen], path)
    tuning = Tuning.model_validate({"unit": unit, "chosen": chosen, "measured": {name: round(cost, 3) for name, cost in measured.items()}})
    return variants[chosen], placements[chosen], tuning


class _Graphs:
    """A step in the forms that targets take and for their engine profiles, each made once."""

    def __init__(self, program: StepProgram) -> None:
        self._program = program
        self._simplified: fx.GraphModule | None = None
        self._lowered: dict[EngineProfile, fx.GraphModule] = {}

    def __call__(self, form: str, profile: EngineProfile) -> nn.Module:
        if form == "3d":
            return self._program.step
        if self._simplified is None:
            self._simplified = simplified(self._program.step, self._program.inputs)
        if profile not in self._lowered:
            self._lowered[profile] = lower_graph(self._simplified, self._program.inputs, profile)
        return self._lowered[profile]
