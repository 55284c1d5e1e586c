"""Measure configurations side by side: each in its own process, taking turns in rounds, so that noise on the machine affects all alike."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.peers.engines import PEERS
from clipstep.benchmarks.records import SPINNING, WHOLE_STREAM, ColdStart, Configuration, Parts, Record, now_utc, this_device
from clipstep.export.network_source import NetworkSource
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.engines import ENGINES, missing_library
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.isolated_engine import runs_here
from clipstep.runtime.openmp import environment_for_timing

TOOLS: dict[str, Sequence[str]] = {
    "pytorch": ["torch"],
    "torch.compile": ["torch"],
    **{name: info.libraries for name, info in ENGINES.items()},
    **{name: peer.distributions for name, peer in PEERS.items()},
}
"""For each engine, the distributions whose versions go into a record."""
ContextFactory = Callable[[], AbstractContextManager[object]]
"""A function that returns the context in which a converter runs, for example one that silences it."""
WARM_UP_STEPS = 3
NAIVE = "naive rank-5 ONNX"
EAGER = "PyTorch eager"
"""The names in records of the network as it was trained, without lowering: as ONNX in onnxruntime, and in PyTorch."""


class Worker:
    """The process of a configuration, which has loaded it and compared its first step with the golden steps.

    Raises:
        ClipstepError: the configuration does not load, or computes something else.
    """

    def __init__(self, configuration: Configuration, bundle: Bundle, network: NetworkSource | None, pause_ms: float = 0) -> None:
        self.pause_ms, self.processor_ms = pause_ms, list[float]()
        self.configuration, self.bundle = configuration, bundle
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "clipstep.benchmarks.worker",
            ],  # -P: import nothing from the current folder, which somebody else may have filled.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment_for_timing(),
        )
        task = {
            "configuration": configuration.model_dump(),
            "bundle": str(bundle.folder()),
            "network": network and network.values(),
            "pause_ms": pause_ms,
        }
        self.step_ms: list[float] = []
        self.parts: list[Parts] = []
        self.peak_memory_bytes = 0
        try:
            answer = self.ask(json.dumps(task))
            self.cold_start = ColdStart.model_validate(answer["cold_start"])
            self.memory_before_load_bytes: int = answer["memory_before_load_bytes"]
            if not self.cold_start.largest_error <= BOUNDS[configuration.precision]:
                got = f"a relative error of {self.cold_start.largest_error:.3g}"
                raise ClipstepError(f"{configuration.name} computes something else than the golden steps", got=got)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None and self._process.stderr is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            last = (self._process.stderr.read().strip().splitlines() or ["it ended without a message"])[-1]
            raise ClipstepError(f"measuring {self.configuration.name} failed", got=last.removeprefix(f"{ClipstepError.__module__}.ClipstepError: "))
        values: dict[str, Any] = json.loads(answer)
        return values

    def turn(self, steps: int, *, counted: bool) -> None:
        answer = self.ask(str(steps))
        if counted:
            self.step_ms += answer["step_ms"]
            self.processor_ms += answer["processor_ms"]
            self.parts += map(Parts.model_validate, answer["parts"])
            self.peak_memory_bytes = answer["peak_memory_bytes"]

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def bench_bundle(
    bundle: Bundle, network: NetworkSource | None, options: BenchOptions, console: Console, library_context: ContextFactory = quiet
) -> list[Record]:
    """Measure every artifact that runs here and, given the ``network`` behind the bundle, PyTorch and the naive rank-5 ONNX.

    Outputs are compared with the golden steps before anything is timed. The naive ONNX is written inside the context that `library_context` gives.

    Raises:
        ClipstepError: a configuration does not load, or computes something else than the golden steps.
    """
    records = []
    left_out = check_engines(bundle)
    for file, reason in left_out.items():
        console.print(f"left out: {file}: {reason}", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="clipstep-bench-") as temporary:
        naive = None if network is None else write_naive(bundle, network, Path(temporary) / "naive.onnx", console, library_context)
        for threads in options.threads:
            records += measure_configurations(
                configurations_of(bundle, naive, threads, spinning=options.spinning, video=options.video), bundle, network, options, console
            )
    return records


def check_engines(bundle: Bundle) -> dict[str, str]:
    """Return the files of artifacts that cannot be measured here, each with what its engine or this processor lacks.

    Raises:
        ClipstepError: nothing is left to measure.
    """
    bundle.check_runs_on_computers()
    artifacts = [(engine, artifact) for engine, info in ENGINES.items() for artifact in bundle.artifacts(info.target)]
    left_out = {artifact.file: reason for engine, artifact in artifacts if (reason := _lacking(engine, artifact))}
    if len(left_out) == len(artifacts):
        lacks = "; ".join(f"{file}: {reason}" for file, reason in left_out.items())
        raise ClipstepError(
            f"{bundle.path}: holds nothing that can be measured here",
            got=lacks or "other artifacts only",
            expected=None if left_out else f"an artifact for {' or '.join(ENGINES)}",
        )
    return left_out


def as_trained(name: str, target: str, engine: str, threads: int, file: Path | None = None) -> Configuration:
    """Return the configuration of the network as it was trained, without lowering, in some engine."""
    return Configuration(
        name=name, target=target, form="3d", precision="float32", engine=engine, threads=threads, file=None if file is None else str(file)
    )


def configurations_of(bundle: Bundle, naive: Path | None, threads: int, *, spinning: bool = False, video: Path | None = None) -> list[Configuration]:
    """Return the configurations to measure: the naive ONNX and PyTorch, if ``naive`` is given, then each artifact whose engine is installed.

    With ``spinning``, an artifact whose engine can keep its threads waiting busily is measured a second time in that way; with ``video``, each
    artifact is measured once more in the whole stream of that video.
    """
    configurations = []
    if naive is not None:
        configurations.append(as_trained(NAIVE, "onnx", "onnxruntime", threads, naive))
        configurations.append(as_trained(EAGER, "pytorch", "pytorch", threads))
    for engine, artifact in ((engine, artifact) for engine, info in ENGINES.items() for artifact in bundle.artifacts(info.target)):
        if _lacking(engine, artifact):
            continue
        plain = Configuration(
            name=artifact.file,
            target=artifact.target,
            form=artifact.form,
            precision=artifact.precision,
            engine=engine,
            threads=threads,
            file=artifact.file,
        )
        configurations.append(plain)
        if spinning and ENGINES[engine].spins:
            configurations.append(plain.model_copy(update={"name": f"{artifact.file}{SPINNING}", "spinning": True}))
        if video is not None:
            configurations.append(plain.model_copy(update={"name": f"{artifact.file}{WHOLE_STREAM}", "video": str(video)}))
    return configurations


def _lacking(engine: str, artifact: Artifact) -> str | None:
    """Return why an artifact cannot be measured here, or None if it can."""
    if not runs_here(artifact):
        return "this processor does not compute in float16"
    return missing_library(engine)


def write_naive(bundle: Bundle, network: NetworkSource, path: Path, console: Console, library_context: ContextFactory = quiet) -> Path:
    """Write the network behind a bundle as ONNX of rank 5, as it was trained and without lowering; return ``path``."""
    with library_context():
        from clipstep.export.reference import reference_program
        from clipstep.export.targets.onnx_writer import to_onnx

    with console.status("exporting the naive rank-5 ONNX"), library_context():
        program = reference_program(bundle, network)
        path.write_bytes(to_onnx(program.step, program).SerializeToString())
    return path


def measure_configurations(
    configurations: Sequence[Configuration],
    bundle: Bundle,
    network: NetworkSource | None,
    options: BenchOptions,
    console: Console,
    refused: dict[str, str] | None = None,
) -> list[Record]:
    """Measure configurations side by side.

    A configuration that does not load, or computes something else than the golden steps, is left out and added with the reason to ``refused``.

    Raises:
        ClipstepError: there is such a configuration, and ``refused`` is not given.
    """
    with contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        for configuration in configurations:
            try:
                workers.append(stack.enter_context(Worker(configuration, bundle, network, options.pause_ms)))
            except ClipstepError as error:
                if refused is None:
                    raise
                refused[configuration.name] = str(error)
        return take_turns(workers, options, f"threads {configurations[0].threads}", console)


def take_turns(workers: Sequence[Worker], options: BenchOptions, label: str, console: Console) -> list[Record]:
    """Let the workers take turns for ``options.rounds`` rounds, after a warm-up, and return a record for each."""
    for worker in workers:
        worker.turn(WARM_UP_STEPS, counted=False)
    for _ in track(range(options.rounds), f"{options.rounds} rounds, {label}", console=console, disable=not console.is_terminal):
        for worker in workers:
            worker.turn(options.steps, counted=True)
    return [_record(worker, options.steps) for worker in workers]


def _record(worker: Worker, turn_steps: int) -> Record:
    configuration, bundle = worker.configuration, worker.bundle
    spec = bundle.manifest.input
    named = {artifact.file: artifact for artifact in bundle.manifest.artifacts}
    artifact = named[configuration.file] if configuration.is_artifact and configuration.file else None
    tools = TOOLS[configuration.engine]
    return Record(
        bundle=bundle.path.name,
        manifest_sha256=bundle.manifest_sha256,
        artifact_sha256=artifact.sha256 if artifact else None,
        weights_sha256=bundle.manifest.provenance.weights_sha256,
        configuration=configuration,
        cold_start=worker.cold_start,
        device=this_device(),
        tool_versions={tool: version(tool) for tool in ("clipstep", *tools)},
        placement=artifact.placement.delegated if artifact else {},
        not_delegated=artifact.placement.not_delegated if artifact else (),
        file_bytes=artifact.size_bytes if artifact else Path(configuration.file).stat().st_size if configuration.file else None,
        subclip_s=spec.shape[0] * spec.frame_stride / spec.fps,
        peak_memory_bytes=worker.peak_memory_bytes,
        memory_before_load_bytes=worker.memory_before_load_bytes,
        pause_ms=worker.pause_ms,
        processor_ms=round(float(np.median(worker.processor_ms)), 4),
        step_ms=tuple(round(value, 4) for value in worker.step_ms),
        turn_steps=turn_steps,
        parts=_medians(worker.parts),
        measured_utc=now_utc(),
    )


def _medians(parts: Sequence[Parts]) -> Parts | None:
    if not parts:
        return None
    return Parts(**{name: round(float(np.median([getattr(each, name) for each in parts])), 4) for name in Parts.model_fields})
