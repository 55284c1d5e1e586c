"""Engines in a worker process. Loading one needs no numpy, so that a command can start it before it imports what reads videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipstep.runtime.artifact_io import ArtifactIO
from clipstep.runtime.bundle import Bundle, this_machine
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.float16_processor import computes_float16
from clipstep.runtime.targets import check_artifact_file
from clipstep.runtime.worker_process import WorkerProcess, memory_limits

if TYPE_CHECKING:
    from clipstep.runtime.engine import Array


def runs_here(artifact: Artifact) -> bool:
    """Whether this processor computes in the precision that an artifact needs."""
    return not artifact.needs_float16 or computes_float16(this_machine())


def artifact_for(bundle: Bundle, target: str, precision: str | None) -> tuple[Artifact, str]:
    """Return the artifact of a precision that this processor can run, and what a description says of its precision. None is the precision that the
    bundle chose for this processor, and otherwise float32."""
    precision = bundle.chosen_precision(target) if precision is None else precision
    artifact = bundle.artifact(target, precision=precision)
    if runs_here(artifact):
        return artifact, "" if precision == "float32" else f"{precision}, "
    return bundle.artifact(target), f"float32 in place of {precision}, which this processor does not compute in, "


def checked_file(bundle: Bundle, artifact: Artifact) -> Path:
    """Return the file of an artifact after the checks that it needs before an engine gets it.

    Raises:
        ClipstepError: it is missing, was altered, or is not self-contained.
    """
    file = bundle.file(artifact)
    check_artifact_file(artifact.target, file)
    return file


class IsolatedEngine:
    """An engine whose artifact is loaded and run in a worker process.

    Args:
        loader: the function of clipstep that loads it, `module:function`, which returns an engine.
        path: the artifact.
        what: the engine's name, for messages.
        worker: the process; by default a new one, which `close` ends.

    Raises:
        ClipstepError: it cannot be loaded, or the worker crashed.
    """

    def __init__(self, loader: str, path: Path, what: str, worker: WorkerProcess | None = None, **arguments: Any) -> None:
        self._path, self._what = path, what
        self._owned = worker is None
        self._worker: WorkerProcess = worker or WorkerProcess()
        try:
            header, _ = self._worker.ask(
                path, what, {"load": loader, "arguments": {"path": str(path.absolute()), **arguments}, **memory_limits(path)}
            )
        except BaseException:
            self.close()
            raise
        self._io: ArtifactIO | None = header["io"]

    def describe_io(self) -> ArtifactIO | None:
        """See `clipstep.runtime.artifact_io.DescribesIO`."""
        return self._io

    def run(self, inputs: "Sequence[Array]") -> "list[Array]":
        return self._worker.ask(self._path, self._what, {"run": True}, inputs)[1]

    def close(self) -> None:
        if self._owned:
            self._worker.stop()


def load_isolated(file: Path, engine: str, threads: int, *, spinning: bool = False, worker: WorkerProcess | None = None) -> IsolatedEngine:
    """Load a checked artifact as `clipstep.runtime.engines.load_engine` does, in a worker; see `IsolatedEngine`."""
    return IsolatedEngine("clipstep.runtime.engines:load_engine", file, engine, worker, name=engine, threads=threads, spinning=spinning)
