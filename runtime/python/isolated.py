"""Engines and readers in a process of their own: a file that crashes native code ends that process, and this one says so.

Engines are written in C++ and trust their files. A bundle's hashes prove that a file is what its manifest names, not that it is
harmless, so commands that are given a bundle load its artifacts here.
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
from typing import IO, Any

import numpy as np

from clipstep.runtime.declared import Declared
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError, EngineError

TIMEOUT_S = 300
"""How long it may take to load a file, or to run a step."""
MEMORY_BYTES = 4 << 30
"""What a process may take, and beside it a multiple of the file's size."""
MEMORY_PER_BYTE = 32
DTYPES = ("uint8", "float32", "float16", "float64", "int32", "int64", "bool")
MESSAGE_BYTES = 1 << 30

Message = tuple[dict[str, Any], list[Array]]


def send(file: IO[bytes], header: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Writes one line of JSON, then the arrays' numbers."""
    described = [{"dtype": str(value.dtype), "shape": value.shape} for value in arrays]
    file.write(json.dumps({**header, "arrays": described}).encode() + b"\n")
    for value in arrays:
        file.write(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
    file.flush()


def receive(file: IO[bytes]) -> Message | None:
    """Reads what ``send`` wrote; None at the end of the file, or if it breaks off."""
    line = file.readline(MESSAGE_BYTES)
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    arrays = []
    for item in header.pop("arrays"):
        value = np.empty(item["shape"], DTYPES[DTYPES.index(item["dtype"])])
        view = value.reshape(-1).data.cast("B") if value.size else memoryview(b"")
        while view:
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                return None
            view = view[count:]
        arrays.append(value)
    return header, arrays


class Child:
    """A process that loads, reads and steps for this one. It may be shared by threads, which take turns.

    ``imports`` are modules that it imports first. On Linux each crash leaves a fresh copy of the process as it was after that, and the
    next file goes on there.
    """

    def __init__(self, imports: Sequence[str] = (), timeout_s: int = TIMEOUT_S) -> None:
        self._process = subprocess.Popen(  # -P: what lies in the current folder, such as a bundle, is not imported.
            [sys.executable, "-P", "-m", "clipstep.runtime.isolated_worker", *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._stop = weakref.finalize(self, _end, self._process)

    def ask(self, path: Path, what: str, request: Mapping[str, Any], arrays: Sequence[Array] = ()) -> Message:
        """Sends a request about the file ``path``, for which ``what`` names the library, and gives the answer.

        Raises:
            ClipstepError: what was raised there; an EngineError if the process crashed or did not answer in time.
        """
        with self._lock:
            if not self._stop.alive:
                raise EngineError(f"{path}: the process of {what} has ended", fix="load it again")
            try:
                answer = self._exchange({**request, "timeout_s": self._timeout_s}, arrays)
            except BaseException:  # Ctrl-C in between: what comes next would be the answer to another request.
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

    def _exchange(self, request: Mapping[str, Any], arrays: Sequence[Array]) -> Message | None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            send(self._process.stdin, request, arrays)
        try:
            return receive(self._process.stdout)
        except (ValueError, KeyError, TypeError):  # What a crash left of an answer.
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
        """What the function ``module:function`` of clipstep gives for the file ``path``, called there; JSON both ways.

        Raises:
            ClipstepError: as ``ask``.
        """
        return self.ask(path, what, {"call": function, "arguments": {"path": str(path.absolute()), **arguments}, **_limits(path)})[0]["result"]

    def renewed(self) -> bool:
        """Whether the process goes on as a fresh copy, in which nothing was loaded: only on Linux."""
        with self._lock:
            if sys.platform != "linux" or not self._stop.alive:
                return False
            answer = self._exchange({"renew": True}, ())
            return answer is not None and "renewed" in answer[0]

    def stop(self) -> None:
        """Ends the process. Stopping twice is allowed."""
        self._stop()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, AttributeError):  # Its copies too.
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for file in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # What a broken pipe did not take.
            assert file is not None
            file.close()


_idle: dict[tuple[str, ...], Child] = {}
_idle_lock = threading.Lock()


@contextlib.contextmanager
def fresh_child(imports: Sequence[str]) -> Iterator[Child]:
    """A process in which nothing was loaded yet. What it imports is kept for the next one, because that takes seconds."""
    key = tuple(imports)
    with _idle_lock:
        child = _idle.pop(key, None)
    child = child or Child(imports)
    try:
        yield child
    finally:
        with _idle_lock:
            keep = key not in _idle and child.renewed()
            if keep:
                _idle[key] = child
        if not keep:
            child.stop()


class IsolatedEngine:
    """An artifact that is loaded and run in a process of its own, by ``loader``, a ``module:function`` of clipstep that gives an engine.

    Raises:
        ClipstepError: it cannot be loaded, or the process crashed.
    """

    def __init__(self, loader: str, path: Path, what: str, child: Child | None = None, **arguments: Any) -> None:
        self._path, self._what = path, what
        self._owned = child is None
        self._child: Child = child or Child()
        try:
            header, _ = self._child.ask(path, what, {"load": loader, "arguments": {"path": str(path.absolute()), **arguments}, **_limits(path)})
        except BaseException:
            self.close()
            raise
        self._declared: Declared | None = header["declared"]

    def declared(self) -> Declared | None:
        """As ``clipstep.runtime.engines.Declares`` says."""
        return self._declared

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return self._child.ask(self._path, self._what, {"run": True}, inputs)[1]

    def close(self) -> None:
        if self._owned:
            self._child.stop()


def _limits(path: Path) -> dict[str, int]:
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    return {"memory_bytes": MEMORY_BYTES + MEMORY_PER_BYTE * size}


def call_isolated(function: str, path: Path, what: str, imports: Sequence[str] = (), **arguments: Any) -> Any:
    """What the function ``module:function`` of clipstep gives for the file ``path``, called in a process of its own that imports
    ``imports`` first; JSON both ways.

    Raises:
        ClipstepError: what it raises, or that the process crashed.
    """
    with fresh_child(imports) as child:
        return child.call(function, path, what, **arguments)
