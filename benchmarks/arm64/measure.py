"""Count the ARM64 instructions of a bundle's artifacts, after comparing their outputs with the golden steps."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from clipstep.benchmarks.arm64.emulate import Emulated, emulate
from clipstep.benchmarks.arm64.kit import Kit
from clipstep.benchmarks.arm64.operators import without_profiling
from clipstep.benchmarks.arm64.processor import CPU, Processor
from clipstep.benchmarks.latency import NAIVE, write_naive
from clipstep.benchmarks.records import Configuration, InstructionRecord, now_utc
from clipstep.export.network_source import NetworkSource
from clipstep.runtime.bundle import Bundle, artifact_kind
from clipstep.runtime.bundle.manifest import Arm64Step, Artifact, Interface
from clipstep.runtime.engine import Array
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenErrors, GoldenSteps, ParityError, check_golden
from clipstep.runtime.model import StepModel


@dataclass(frozen=True)
class _Candidate:
    """A file to run, and the artifact it belongs to; None for the naive ONNX."""

    name: str
    engine: str
    file: Path
    artifact: Artifact | None


def count_bundle(
    bundle: Bundle,
    network: NetworkSource | None,
    console: Console,
    *,
    steps: int | None = None,
    operators: bool = False,
    kit: Kit | None = None,
    processor: Processor | None = None,
) -> list[InstructionRecord]:
    """Count the instructions of every artifact that runs on ARM64 here and, given the ``network`` behind the bundle, of its naive rank-5 ONNX.

    ``steps`` is the number of golden steps to run, by default all; ``operators`` also counts each operator; ``processor`` is the one that is
    emulated, by default `CPU`. An artifact that needs a processor which computes in float16 is left out on another one, with a line that says so.

    Raises:
        ClipstepError: the ARM64 engines are not set up or have other versions than those that verified the bundle, the bundle has nothing that
            runs in them, or something computes other numbers than the golden steps.
    """
    kit = kit or Kit.open()
    processor = processor or Processor.read(kit.path, CPU)
    golden = first_steps(GoldenSteps.of(bundle), steps)
    artifacts = _runnable(_artifacts(bundle), processor, console)
    for candidate in artifacts:
        assert candidate.artifact is not None
        kit.check_version(candidate.name, candidate.engine, candidate.artifact.tool_versions.get(candidate.engine))
    records = []
    with tempfile.TemporaryDirectory(prefix="clipstep-bench-") as temporary:
        for candidate in (*_naive(bundle, network, Path(temporary), console), *artifacts):
            with console.status(f"{candidate.name} on ARM64, {len(golden.logits)} steps and a reset"):
                records.append(_count(kit, processor, candidate, bundle, golden, operators=operators))
    return records


def arm64_step(record: InstructionRecord) -> Arm64Step:
    """Return the counts of an artifact as a manifest holds them."""
    return Arm64Step(
        engine=record.configuration.engine,
        engine_version=record.tool_versions[record.configuration.engine],
        golden_steps=len(record.steps),
        **record.step.model_dump(include={"instructions", "vector_fmas", "loads", "stores"}),
    )


def first_steps(golden: GoldenSteps, steps: int | None) -> GoldenSteps:
    """Return the first ``steps`` golden steps, or all if it is None, without the logits of flushed videos, because a flush is not counted.

    Raises:
        ClipstepError: there are fewer.
    """
    if steps is not None and steps > len(golden.logits):
        raise ClipstepError("the bundle has fewer golden steps", got=steps, expected=f"at most {len(golden.logits)}")
    steps = steps or len(golden.logits)
    dropped = len(golden.logits) - steps  # States may be recorded for the last steps only.
    states, kept = ({name: value[: max(0, len(value) - dropped)] for name, value in values.items()} for values in (golden.states, golden.kept))
    return replace(golden, logits=golden.logits[:steps], states=states, kept=kept, flushed={})


def _artifacts(bundle: Bundle) -> list[_Candidate]:
    found: list[_Candidate] = []
    for engine, info in ENGINES.items():
        found += [_Candidate(artifact.file, engine, bundle.file(artifact), artifact) for artifact in bundle.artifacts(info.target, "arm64")]
    if not found:
        bundle.check_runs_on_computers()
        have = ", ".join(sorted({artifact_kind(a) for a in bundle.manifest.artifacts}))
        expected = f"{' or '.join(info.target for info in ENGINES.values())} for arm64 or any"
        raise ClipstepError(f"{bundle.path}: has no artifact that runs on ARM64 here", got=have, expected=expected, fix="export one")
    return found


def _runnable(candidates: Sequence[_Candidate], processor: Processor, console: Console) -> list[_Candidate]:
    """Return the artifacts that run on the processor, by the rule of the runtimes, and say which do not."""
    runnable = []
    for candidate in candidates:
        if candidate.artifact is None or not candidate.artifact.needs_float16 or processor.computes_float16:
            runnable.append(candidate)
        else:
            why = f"{processor.name} does not compute in float16, and runtimes take the artifact of float32 there"
            console.print(f"left out: {candidate.name}: {why}", soft_wrap=True)
    if not runnable:
        raise ClipstepError("no artifact of the bundle runs on this processor", got=processor.name, fix="export one of float32")
    return runnable


def _naive(bundle: Bundle, network: NetworkSource | None, folder: Path, console: Console) -> Iterator[_Candidate]:
    if network is not None:
        yield _Candidate(NAIVE, "onnxruntime", write_naive(bundle, network, folder / "naive.onnx", console), None)


class _Replay:
    """An engine that replays outputs which were computed under QEMU, so that the usual comparison with golden steps applies."""

    def __init__(self, outputs: Sequence[list[Array]]) -> None:
        self._outputs = iter(outputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return next(self._outputs)

    def close(self) -> None:
        self._outputs = iter(())


def _count(kit: Kit, processor: Processor, candidate: _Candidate, bundle: Bundle, golden: GoldenSteps, *, operators: bool) -> InstructionRecord:
    artifact, manifest = candidate.artifact, bundle.manifest
    interface = manifest.interface(artifact.input_dtype if artifact else "uint8")
    emulated = emulate(kit, processor, candidate.engine, candidate.file, interface, golden)
    precision = artifact.precision if artifact else "float32"
    errors = check_emulated(emulated, candidate.name, precision, interface, golden)
    first, *later = emulated.counts
    record = InstructionRecord(
        bundle=bundle.path.name,
        manifest_sha256=bundle.manifest_sha256,
        artifact_sha256=artifact.sha256 if artifact else None,
        weights_sha256=manifest.provenance.weights_sha256,
        configuration=Configuration(
            name=candidate.name,
            target=ENGINES[candidate.engine].target,
            form=artifact.form if artifact else "3d",
            precision=precision,
            engine=candidate.engine,
            threads=1,
            file=candidate.file.name,
        ),
        emulator=kit.emulator,
        cpu_model=processor.name,
        cpu_features=processor.features,
        tool_versions={"clipstep": version("clipstep"), candidate.engine: kit.versions[candidate.engine]},
        file_bytes=candidate.file.stat().st_size,
        needed_multiply_accumulates=manifest.export.multiply_accumulates,
        largest_error=errors.relative,
        first_step=first,
        steps=tuple(later),
        measured_utc=now_utc(),
    )
    if not operators:
        return record
    profiled = emulate(kit, processor, candidate.engine, candidate.file, interface, first_steps(golden, 1), operators=True)
    return record.model_copy(update={"operators": without_profiling(profiled.operators, record.step)})


def check_emulated(emulated: Emulated, name: str, precision: str, interface: Interface, golden: GoldenSteps) -> GoldenErrors:
    """Compare what an artifact computed on an emulated processor with the golden steps that it ran.

    Raises:
        ClipstepError: an error exceeds the bound of the precision; the message has the name.
    """
    try:
        return check_golden(StepModel(interface, _Replay(emulated.outputs), name), golden, precision)
    except ParityError as error:
        raise ClipstepError(f"{name} computes something else than the golden steps on ARM64: {error}") from error
