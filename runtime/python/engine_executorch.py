"""The engine `executorch`: ExecuTorch's portable runtime with XNNPACK."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from clipstep.runtime.artifact_io import METADATA, ArtifactIO, Tensor
from clipstep.runtime.engine_info import EngineInfo
from clipstep.runtime.errors import ClipstepError, EngineError, error_summary
from clipstep.runtime.executorch_internals import Binding, binding
from clipstep.runtime.fork_safety import FIX, OwnerProcess


class _User:
    """A user of the pool that is not an open model but a `with` block; see `ThreadPool.held`."""


class ThreadPool:
    """ExecuTorch's thread pool. There is one for the whole process, and changing its number of threads means replacing it.

    It is never replaced while something uses it: an open model, running or not, keeps a reference to the pool that it was loaded with.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: WeakSet[object] = WeakSet()
        self._process: int | None = None
        self._threads = 0

    @contextmanager
    def loading(self, user: object, threads: int) -> Iterator[Binding]:
        """Yield ExecuTorch's binding, with which `user` loads a model that is run by `threads` threads. One user loads at a time.

        The pool stays as it is until `user` is garbage-collected, or given to `leave`.

        Raises:
            ClipstepError: a model that is open uses another number of threads; the process was forked from one that uses ExecuTorch.
        """
        if self._process not in (None, os.getpid()):
            raise EngineError("ExecuTorch was used before this process was forked, and its threads are not in it", fix=FIX)
        self._process, executorch = os.getpid(), binding()
        with self._lock:
            if self._users and self._threads != threads:
                raise ClipstepError(
                    f"ExecuTorch has one thread pool a process: got {threads} threads, but a model that is open uses {self._threads}",
                    fix="close it first, or ask for the same number",
                )
            if executorch.thread_count() != threads:
                executorch.set_thread_count(threads)
            if (used := executorch.thread_count()) != threads:
                raise ClipstepError("ExecuTorch did not take the thread count", got=used, expected=threads)
            self._threads = threads
            self._users.add(user)
            try:
                yield executorch
            except BaseException:
                self._users.discard(user)
                raise

    @contextmanager
    def held(self, threads: int) -> Iterator[Binding]:
        """Yield ExecuTorch's binding, for models that are loaded and run inside the context. The pool is not replaced until the context ends."""
        user = _User()
        with self.loading(user, threads) as executorch:
            pass
        try:
            yield executorch
        finally:
            self.leave(user)

    def leave(self, user: object) -> None:
        """Record that `user` no longer uses the pool."""
        self._users.discard(user)


POOL = ThreadPool()
DTYPES = {0: "uint8", 5: "float16", 6: "float32"}
"""The names of numpy's types by the numbers of torch's ScalarType."""


def _declared(value: Any) -> Tensor:
    return None, DTYPES.get(value.dtype(), f"type {value.dtype()}"), list(value.sizes())


class ExecuTorch:
    """An artifact in ExecuTorch. Steps of one model take turns, because a module of ExecuTorch runs one call at a time."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._lock, self._loaded = path, threading.Lock(), OwnerProcess()
        with POOL.loading(self, threads) as executorch:
            try:
                self._module: Any = executorch.load(str(path))
                self._inputs: int = self._module.method_meta("forward").num_inputs()  # load() alone does not read the file yet.
            except Exception as error:  # Mostly RuntimeError, but other types too for damaged files.
                raise EngineError(f"{path}: ExecuTorch cannot load it", got=error_summary(error)) from error

    def describe_io(self) -> ArtifactIO:
        meta = self._module.method_meta("forward")
        try:
            inputs = [_declared(meta.input_tensor_meta(index)) for index in range(meta.num_inputs())]
            outputs = [_declared(meta.output_tensor_meta(index)) for index in range(meta.num_outputs())]
        except Exception as error:
            raise EngineError(f"{self._path}: takes or gives something that is no tensor", got=error_summary(error)) from error
        return {"inputs": inputs, "outputs": outputs, "metadata": self._metadata()}

    def _metadata(self) -> str | None:
        """Return clipstep's metadata, which a constant method of the file returns, or None if the file has no such method."""
        if METADATA not in self._module.method_names():
            return None
        try:
            (metadata,) = self._module.run_method(METADATA, [])
        except Exception as error:
            raise EngineError(f"{self._path}: the clipstep metadata in it cannot be read", got=error_summary(error), fix="export it again") from error
        return metadata if isinstance(metadata, str) else None

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        import torch  # ExecuTorch's Python binding takes and gives torch tensors.

        self._loaded.check(self._path)
        with self._lock:
            if self._module is None:
                raise EngineError(f"{self._path}: the engine is closed", fix="load it again")
            if len(inputs) != self._inputs:  # For a missing input, ExecuTorch would compute with whatever its memory holds.
                raise EngineError(f"{self._path}: wrong number of inputs", got=len(inputs), expected=self._inputs)
            try:
                given = [torch.from_numpy(value) for value in inputs]
                # Copied by numpy, because torch's own copy would start its OpenMP threads, however many threads were asked for.
                return [output.numpy().copy() for output in self._module.forward(given, clone_outputs=False)]
            except Exception as error:
                raise EngineError(f"{self._path}: ExecuTorch failed in a step", got=error_summary(error)) from error

    def close(self) -> None:
        """Free the module, once a step that is running has ended."""
        with self._lock:
            self._module = None
        POOL.leave(self)


def threads_used() -> int:
    """Return the number of threads in ExecuTorch's pool."""
    return binding().thread_count()


EXECUTORCH = EngineInfo(
    name="executorch",
    display_name="ExecuTorch",
    target="executorch",
    load=ExecuTorch,
    spins=False,
    libraries=("executorch", "torch"),
    module="clipstep.runtime.executorch_binding",
    extra="export",
    threads_used=threads_used,
)
