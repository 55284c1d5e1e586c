"""Run engines and readers of files in a worker process, so that a file that crashes native code cannot end this process.

Engines are written in C++ and trust their files. A bundle's hashes prove that a file is the one that its manifest names, not that it is
harmless, so commands load the artifacts of bundles in a worker.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from clipstep.runtime.errors import ClipstepError, EngineError

if TYPE_CHECKING:  # Not otherwise: a worker can then be started before numpy is imported, and import its engine meanwhile.
    from clipstep.runtime.engine import Array

TIMEOUT_S = 300
"""How long a request, such as to load a file or to run a step, may take."""
MEMORY_BYTES = 4 << 30
"""How much memory a worker may use, in addition to `MEMORY_PER_BYTE` times the size of its file."""
MEMORY_PER_BYTE = 32
DTYPES = ("uint8", "float32", "float16", "float64", "int32", "int64", "bool")
MESSAGE_BYTES = 1 << 30

Message = tuple[dict[str, Any], "list[Array]"]


def send(file: IO[bytes], header: Mapping[str, Any], arrays: "Sequence[Array]" = ()) -> None:
    """Write a message: one line of JSON, then the bytes of the arrays."""
    described = [{"dtype": str(value.dtype), "shape": value.shape} for value in arrays]
    file.write(json.dumps({**header, "arrays": described}).encode() + b"\n")
    for value in arrays:
        contiguous = value if value.flags.c_contiguous else value.copy()
        file.write(contiguous.data.cast("B") if value.size else b"")
    file.flush()


def receive(file: IO[bytes]) -> Message | None:
    """Read a message that `send` wrote. Returns None at the end of the file, or if the message breaks off."""
    line = file.readline(MESSAGE_BYTES)
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    arrays = []
    for item in header.pop("arrays"):
        value = _array(file, item["dtype"], item["shape"])
        if value is None:
            return None
        arrays.append(value)
    return header, arrays


def _array(file: IO[bytes], dtype: str, shape: Sequence[int]) -> "Array | None":
    import numpy as np

    value = np.empty(shape, DTYPES[DTYPES.index(dtype)])
    view = value.reshape(-1).data.cast("B") if value.size else memoryview(b"")
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return None
        view = view[count:]
    return value


class WorkerProcess:
    """A process that loads and reads files and runs steps for this one. Threads may share it and take turns.

    It imports the modules `imports` first. On Linux it then forks, and the fork does the work: after a crash the next file gets a new fork,
    without a new import.
    """

    def __init__(self, imports: Sequence[str] = (), timeout_s: int = TIMEOUT_S) -> None:
        self._process = subprocess.Popen(  # -P: never import from the current folder, which may be a bundle.
            [sys.executable, "-P", "-m", "clipstep.runtime.worker_main", *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._stop = weakref.finalize(self, _end, self._process)

    def ask(self, path: Path, what: str, request: Mapping[str, Any], arrays: "Sequence[Array]" = ()) -> Message:
        """Send a request and return the answer.

        Args:
            path: the file that the request is about, for messages.
            what: the library that reads it, for messages.
            request: what to do, see `clipstep.runtime.worker_main.Worker.serve`.
            arrays: the arrays of the request.

        Raises:
            ClipstepError: the worker raised one. It is an EngineError if the worker crashed or did not answer in time.
        """
        with self._lock:
            if not self._stop.alive:
                raise EngineError(f"{path}: the process of {what} has ended", fix="load it again")
            try:
                answer = self._exchange({**request, "timeout_s": self._timeout_s}, arrays)
            except BaseException:  # Such as Ctrl-C: this request's answer would be taken for that of the next one.
                self._stop()
                raise
            if answer is None:
                code = self._process.wait()
                self._stop()
                raise self._death(path, what, code)
        if "died" in answer[0]:
            raise self._death(path, what, answer[0]["died"])
        if "refused" in answer[0]:
            raise (EngineError if answer[0]["by_engine"] else ClipstepError)(answer[0]["refused"])
        if "failed" in answer[0]:
            raise EngineError(f"{path}: {what} failed", got=answer[0]["failed"])
        return answer

    def _exchange(self, request: Mapping[str, Any], arrays: "Sequence[Array]") -> Message | None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            send(self._process.stdin, request, arrays)
        try:
            return receive(self._process.stdout)
        except (ValueError, KeyError, TypeError):  # The worker crashed while it was writing its answer.
            self._process.kill()
            return None

    def _death(self, path: Path, what: str, code: int) -> EngineError:
        fix = f"the file is damaged, or not made for this version of {what}: export it again, or install the version that the manifest names"
        if code == -signal.SIGALRM:
            return EngineError(f"{path}: {what} gave no answer within {self._timeout_s} s and was stopped", fix=fix)
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else "unknown"
            return EngineError(f"{path}: {what} crashed (signal {-code}, {name})", fix=fix)
        return EngineError(f"{path}: {what} ended its process (exit code {code})", fix=fix)

    def call(self, function: str, path: Path, what: str, **arguments: Any) -> Any:
        """Call a function of clipstep in the worker and return its result; arguments and result are sent as JSON.

        Args:
            function: its name, `module:function`. It is called with `path` and `arguments`.
            path: the file that it reads.
            what: the library that reads the file, for messages.

        Raises:
            ClipstepError: see `ask`.
        """
        return self.ask(path, what, {"call": function, "arguments": {"path": str(path.absolute()), **arguments}, **memory_limits(path)})[0]["result"]

    def renewed(self) -> bool:
        """Replace the fork that does the work by a new one, in which no file was loaded. Returns whether that worked: on Linux only."""
        with self._lock:
            if sys.platform != "linux" or not self._stop.alive:
                return False
            answer = self._exchange({"renew": True}, ())
            return answer is not None and "renewed" in answer[0]

    def stop(self) -> None:
        """End the process. It may be called twice."""
        self._stop()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, AttributeError):  # Kills its forks, too, which are in its process group.
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for file in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # Closing flushes what was buffered, which fails if the pipe is broken.
            assert file is not None
            file.close()


_idle: dict[tuple[str, ...], WorkerProcess] = {}
_idle_lock = threading.Lock()


@contextlib.contextmanager
def fresh_worker(imports: Sequence[str]) -> Iterator[WorkerProcess]:
    """Yield a worker in which no file was loaded yet. It is kept for the next caller afterwards, because its imports take seconds."""
    key = tuple(imports)
    with _idle_lock:
        worker = _idle.pop(key, None)
    worker = worker or WorkerProcess(imports)
    try:
        yield worker
    finally:
        with _idle_lock:
            keep = key not in _idle and worker.renewed()
            if keep:
                _idle[key] = worker
        if not keep:
            worker.stop()


def call_in_worker(function: str, path: Path, what: str, imports: Sequence[str] = (), **arguments: Any) -> Any:
    """Call a function of clipstep in a worker that imports `imports` first, and return its result; see `WorkerProcess.call`.

    Raises:
        ClipstepError: the function raised it, or the worker crashed.
    """
    with fresh_worker(imports) as worker:
        return worker.call(function, path, what, **arguments)


def memory_limits(path: Path) -> dict[str, int]:
    """Return the keys of a request that limit the memory which a worker may use for a file or folder."""
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    return {"memory_bytes": MEMORY_BYTES + MEMORY_PER_BYTE * size}
