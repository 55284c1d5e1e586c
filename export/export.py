"""A trained run as a verified bundle."""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import fx, nn

from clipstep.export.choices import IOS, OPSETS, OUTPUTS
from clipstep.export.facts import interface_of
from clipstep.export.head import settle_output
from clipstep.export.interrupts import interruptible, stopping
from clipstep.export.lowering.frames import Style
from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.mistakes import record_telling
from clipstep.export.step import StepProgram, program_of
from clipstep.export.stream.run import window_frames
from clipstep.export.targets import TARGETS, Target
from clipstep.export.targets.common import Versions
from clipstep.export.verify import check_artifact, check_steps
from clipstep.runtime.bundle import MANIFEST, tree_sha256, tree_size
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.finished import BUNDLE, check_output
from clipstep.runtime.golden import GoldenSteps, bound_text
from clipstep.runtime.lock import one_writer
from clipstep.runtime.manifest import Artifact, Golden, Interface, Manifest, Parity, Placement, Provenance, Tuning
from clipstep.runtime.terminal import Doing, not_told
from clipstep.runtime.whole import write_whole
from clipstep.training.count import multiply_accumulates
from clipstep.training.run import Run

GOLDEN_FILE = "golden.safetensors"


Tune = Callable[[str, str, Mapping[str, Path], Interface, GoldenSteps], tuple[str, dict[str, float]]]
"""``(platform, target, files by the way they are written, facts, golden steps)`` gives what a step of each costs there, and the unit."""


@dataclass(frozen=True)
class Ask:
    """What to write.

    ``form`` and ``input_dtype`` ``"auto"`` are each target's usual ones; ``stream`` is the number of new frames a step, as
    :func:`~clipstep.export.step.program_of` takes it, and ``window`` how many seconds its predictions go back, None for all.
    For each of ``platforms`` a target that may differ by processor gets an artifact: by ``tune``, if it is given,
    the cheapest of all the ways to write it. ``opset`` is ONNX's operator set,
    and ``ios`` the lowest iOS of Core ML models; None stands for those of :class:`~clipstep.export.targets.common.Versions`.
    """

    targets: Sequence[str] = tuple(TARGETS)
    form: str = "auto"
    input_dtype: str = "auto"
    stream: int | None = None
    platforms: Sequence[str] = ("any",)
    tune: Tune | None = None
    window: float | None = None
    output: str | None = None
    """What the first output holds, one of :data:`~clipstep.export.choices.OUTPUTS`; None for what is recognised."""
    opset: int | None = None
    ios: int | None = None

    @property
    def versions(self) -> Versions:
        return Versions(**{name: value for name, value in (("opset", self.opset), ("ios", self.ios)) if value is not None})

    def __post_init__(self) -> None:
        if self.window is not None and self.stream is None:
            raise ClipstepError("--window is for a stream", got="no --stream", fix="add --stream K, the new frames of a step")
        if self.tune is not None and "any" in self.platforms:
            raise ClipstepError("what is cheapest depends on the processor", got="any", expected="--platform arm64 or x86_64 beside --tune")
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            raise ClipstepError("unknown target", got=", ".join(unknown) or "none", expected=f"some of {', '.join(TARGETS)}")
        if not any(TARGETS[name].platforms for name in self.targets) and (self.tune is not None or set(self.platforms) != {"any"}):
            option = "--tune" if self.tune is not None else "--platform"
            raise ClipstepError(f"{option} does nothing for {', '.join(self.targets)}, which is the same for all", fix=f"leave {option} out")
        if self.tune is not None and self.form == "3d":
            raise ClipstepError("--tune does nothing with --form 3d, of which there is one way to write it", fix="leave one of them out")
        if self.output not in (None, *OUTPUTS):
            raise ClipstepError("unknown output", got=self.output, expected=f"one of {', '.join(OUTPUTS)}")
        for option, number, known, target in (("--opset", self.opset, OPSETS, "onnx"), ("--ios", self.ios, IOS, "coreml")):
            if number is not None and number not in known:
                raise ClipstepError(f"{option} is not one that {target} is written for", got=number, expected=f"{known[0]} to {known[-1]}")
            if number is not None and target not in self.targets:
                raise ClipstepError(f"{option} is for {target}", got=f"--target {' '.join(self.targets)}", expected=f"--target {target} among them")
        for name in self.targets:
            for what, asked, takes in (("form", self.form, TARGETS[name].forms), ("input", self.input_dtype, TARGETS[name].input_dtypes)):
                if asked not in ("auto", *takes):
                    raise ClipstepError(
                        f"{name} does not take the {what}", got=asked, expected=f"auto or {' or '.join(takes)}", fix=f"export {name} by itself"
                    )


@dataclass(frozen=True)
class Written:
    """One artifact that was written and verified, and how long each took in seconds."""

    artifact: Artifact
    write_seconds: float
    verify_seconds: float


Around = Callable[[], AbstractContextManager[object]]
"""Gives what the converters and engines are run inside, as :func:`~clipstep.runtime.terminal.quiet` for a command."""
_EXPORTING = threading.RLock()


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """torch's tracing and coremltools' builder keep their state in globals."""
    with _EXPORTING:
        yield


@_one_at_a_time()
def export_run(
    run: Run, source: Path | str, out: Path, ask: Ask = Ask(), report: Callable[[Written], None] = lambda _: None,
    around: Around = nullcontext, *, force: bool = False, doing: Doing = not_told,
) -> Manifest:  # fmt: skip
    """Writes the bundle ``out`` with an artifact for each target asked for and each of its precisions, verified; whole, or not at all.

    ``source`` is the run's folder or the network's factory, named in the manifest. ``report`` is called after each artifact. The
    converters write warnings and progress to the process' own streams, unless ``around`` keeps them quiet. Calls of several threads
    take turns. Each step runs inside what ``doing`` gives for its name. A bundle that is there is replaced if ``force`` says so, once the new one
    is whole.

    Raises:
        ClipstepError: the network breaks the step contract or cannot be lowered, an artifact is not what the eager
            network computes, ``out`` exists and is not a bundle to replace, or somebody else is writing there.
    """
    with one_writer(out), interruptible() as stop:
        return _export(run, source, out, ask, report, around, force=force, doing=stopping(doing, stop))


def _export(
    run: Run, source: Path | str, out: Path, ask: Ask, report: Callable[[Written], None], around: Around, *, force: bool, doing: Doing
) -> Manifest:
    check_output(out, BUNDLE, force=force)
    window = window_frames(ask.window, run.info.fps, ask.stream) if ask.window is not None and ask.stream is not None else None
    with doing("tracing the network", False):
        program = program_of(run, ask.stream, window)
    subclips = program.subclips(run.sample.flatten(0, 1))
    with doing("recording golden steps", False):
        recorded = record_telling(program, subclips, run.content)
    golden = recorded.golden
    output = settle_output(ask.output, program, golden.logits)
    if ask.stream is not None:
        with doing("checking the stream against the clip network", False):
            check_steps(program, subclips)
    interface = interface_of(run, program, out.name.removesuffix(".clipstep"), output)
    with write_whole(out, replace=force) as folder:
        artifacts = []
        for written in _write_artifacts(program, golden, interface, ask, folder, around, doing):
            artifacts.append(written.artifact)
            report(written)
        with doing(f"writing {MANIFEST}", True):
            golden.save(folder / GOLDEN_FILE)
            manifest = Manifest(
                schema_version=1,
                **interface.model_dump(),
                artifacts=tuple(artifacts),
                golden=Golden(
                    file=GOLDEN_FILE, size_bytes=tree_size(folder / GOLDEN_FILE), sha256=tree_sha256(folder / GOLDEN_FILE), content=recorded.content,
                    cannot_show=recorded.cannot_show,
                ),
                provenance=Provenance(
                    run=str(source), checkpoint_sha256=run.info.checkpoint_sha256, clipstep_version=version("clipstep"),
                    architecture=run.info.architecture, config=dict(run.info.config), training=dict(run.info.training), stream_frames=ask.stream,
                    weights=run.info.weights, weights_key=run.info.weights_key,
                    multiply_accumulates=multiply_accumulates(program.step, *program.inputs),
                ),
            )  # fmt: skip
            (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return manifest


def _write_artifacts(
    program: StepProgram, golden: GoldenSteps, interface: Interface, ask: Ask, folder: Path, around: Around, doing: Doing
) -> Iterator[Written]:
    if ask.input_dtype == "float32":
        program = replace(program, frames=program.frames.float())
    graph_of = _Graphs(program)
    for name in ask.targets:
        target = TARGETS[name]
        input_dtype = target.input_dtypes[0] if ask.input_dtype == "auto" else ask.input_dtype
        embedded = interface.model_copy(update={"input": interface.input.model_copy(update={"dtype": input_dtype})})
        for platform in ask.platforms if target.platforms else ("any",):
            for precision in target.precisions:
                path = _named_for(platform, folder / target.file.format(precision))
                started = time.monotonic()
                with doing(f"writing {path.name}", True):
                    way, placement, tuning = _write_cheapest(name, platform, precision, path, graph_of, program, embedded, golden, ask, around)
                written = time.monotonic()
                with doing(f"verifying {path.name}", True), around():
                    errors = check_artifact(name, path, precision, embedded, golden)
                verified = time.monotonic()
                artifact = Artifact.model_validate(
                    {
                        "target": name,
                        "platform": platform,
                        "form": way.form,
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
                yield Written(artifact, written - started, verified - written)


def _named_for(platform: str, path: Path) -> Path:
    return path if platform == "any" else path.with_name(f"{path.stem}-{platform}{path.suffix}")


@dataclass(frozen=True)
class _Way:
    """A way to write an artifact."""

    name: str
    form: str
    style: Style


def _ways(target: Target, form: str, platform: str) -> list[_Way]:
    """The usual one first."""
    forms = target.forms if form == "auto" else (form,)
    usual = target.platforms.get(platform, next(iter(target.styles)))
    names = [usual, *(name for name in target.styles if name != usual)]
    lowered = [_Way(name, "lowered", target.styles[name]) for name in names] if "lowered" in forms else []
    return [*lowered, *([_Way("3d", "3d", target.styles[usual])] if "3d" in forms else [])]


def _write_cheapest(
    target_name: str, platform: str, precision: str, path: Path, graph_of: "_Graphs", program: StepProgram, facts: Interface, golden: GoldenSteps,
    ask: Ask, around: Around,
) -> tuple[_Way, Placement, Tuning | None]:  # fmt: skip
    """Writes ``path`` in the usual way or, tuned, in each way beside it that gives another file, of which the cheapest takes its
    place."""
    target = TARGETS[target_name]
    ways = {way.name: way for way in _ways(target, ask.form, platform)}
    usual = next(iter(ways.values()))

    def write(way: _Way, file: Path) -> Placement:
        with around():
            return target.write(graph_of(way.form, way.style), program, precision, facts.model_dump_json(), file, ask.versions)

    if ask.tune is None or not target.platforms:
        return usual, write(usual, path), None
    with tempfile.TemporaryDirectory(prefix="clipstep-tune-") as temporary:
        files = {name: Path(temporary) / f"{name}{path.suffix}" for name in ways}
        placements = {name: write(way, files[name]) for name, way in ways.items()}
        different: dict[str, str] = {}
        for name, file in files.items():
            different.setdefault(tree_sha256(file), name)
        unit, measured = ask.tune(platform, target_name, {name: files[name] for name in different.values()}, facts, golden)
        chosen = min(measured, key=lambda way: measured[way])
        shutil.move(files[chosen], path)
    tuning = Tuning.model_validate({"unit": unit, "chosen": chosen, "measured": {way: round(cost, 3) for way, cost in measured.items()}})
    return ways[chosen], placements[chosen], tuning


class _Graphs:
    """A step in the forms and styles that targets take, each made once."""

    def __init__(self, program: StepProgram) -> None:
        self._program = program
        self._simplified: fx.GraphModule | None = None
        self._lowered: dict[Style, fx.GraphModule] = {}

    def __call__(self, form: str, style: Style) -> nn.Module:
        if form == "3d":
            return self._program.step
        if self._simplified is None:
            self._simplified = simplified(self._program.step, self._program.inputs)
        if style not in self._lowered:
            self._lowered[style] = lower_graph(self._simplified, self._program.inputs, style)
        return self._lowered[style]
