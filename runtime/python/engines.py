"""What executes an artifact on this machine, behind one small interface."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install import install_extra
from clipstep.runtime.terminal import quiet_stderr

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded artifact. It may be shared by threads."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Frames and states in the manifest's order to logits and next states; inputs are not written to."""

    def close(self) -> None:
        """Gives the memory back; using the engine afterwards is an error of the caller's."""


def onnxruntime_session(path: Path, threads: int, **options: Any) -> Any:
    """A session of onnxruntime on the CPU; ``options`` are more attributes of its ``SessionOptions``."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False  # One block for all values of a step is a quarter larger than what they take in turn.
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


class OnnxRuntime:
    """onnxruntime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            self._session: Any = onnxruntime_session(path, threads)
        except Exception as error:  # onnxruntime's exceptions share no base class of its own.
            raise ClipstepError(f"{path}: onnxruntime cannot load it", got=str(error).splitlines()[0]) from error
        self._names = [value.name for value in self._session.get_inputs()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))

    def close(self) -> None:
        self._session = None


class ExecuTorch:
    """ExecuTorch's portable runtime with XNNPACK. Its thread pool is one for the whole process."""

    threads: int
    _open: ClassVar["WeakSet[ExecuTorch]"] = WeakSet()

    def __init__(self, path: Path, threads: int) -> None:
        with quiet_stderr():
            from executorch.extension.pybindings import portable_lib

        if any(other.threads != threads for other in self._open):
            raise ClipstepError(
                f"ExecuTorch has one thread pool a process: got {threads} threads, but a model that is open uses another number",
                fix="close it first, or ask for the same number",
            )
        self.threads = threads
        with quiet_stderr():
            portable_lib._unsafe_reset_threadpool(threads)
            used = portable_lib._threadpool_get_thread_count()
        if used != threads:
            raise ClipstepError("ExecuTorch did not take the thread count", got=used, expected=threads)
        try:
            with quiet_stderr():
                self._module: Any = portable_lib._load_for_executorch(str(path))
                self._module.method_meta("forward")  # Loading alone does not look into the file.
        except RuntimeError as error:
            raise ClipstepError(f"{path}: ExecuTorch cannot load it", got=str(error).splitlines()[0]) from error
        self._open.add(self)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        import torch  # ExecuTorch's Python binding takes and gives torch tensors.

        return [output.numpy() for output in self._module.forward([torch.from_numpy(value) for value in inputs])]

    def close(self) -> None:
        self._module = None
        self._open.discard(self)


@dataclass(frozen=True)
class EngineInfo:
    """How an engine is reached: the target it runs, the extra that it needs, and how it loads a file."""

    target: str
    extra: str | None
    load: Callable[[Path, int], Engine]


ENGINES = {
    "onnxruntime": EngineInfo("onnx", None, OnnxRuntime),
    "executorch": EngineInfo("executorch", "export", ExecuTorch),
}


def load_engine(name: str, path: Path, threads: int) -> Engine:
    """The artifact at ``path`` in the engine of that name.

    Raises:
        ClipstepError: an unknown engine, one that is not installed, a thread count this machine does not have, or a
            file that the engine refuses.
    """
    info = engine_info(name)
    check_threads(threads)
    try:
        return info.load(path, threads)
    except ModuleNotFoundError as error:
        fix = "pip install onnxruntime" if info.extra is None else install_extra(info.extra)
        raise ClipstepError(f"engine {name} needs {error.name}, which is not installed", fix=fix) from error


def check_threads(threads: int) -> None:
    """Checks that this machine has that many cores.

    Raises:
        ClipstepError: it has not.
    """
    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ClipstepError("thread count not available", got=threads, expected=f"1 to {cores}")


def engine_info(name: str) -> EngineInfo:
    """The engine of that name.

    Raises:
        ClipstepError: there is none.
    """
    if name not in ENGINES:
        raise ClipstepError("unknown engine", got=name, expected=f"one of {', '.join(ENGINES)}")
    return ENGINES[name]


def as_array(value: object, dtype: str, shape: tuple[int, ...], name: str) -> Array:
    """``value`` as a contiguous array, if it is one of exactly that type and shape.

    Raises:
        ClipstepError: it is not.
    """
    if not isinstance(value, np.ndarray):
        raise ClipstepError(f"{name} must be a numpy array", got=type(value).__name__, expected=f"{dtype} {shape}")
    if value.dtype != dtype or value.shape != shape:
        raise ClipstepError(f"{name} has the wrong shape or type", got=f"{value.dtype} {value.shape}", expected=f"{dtype} {shape}")
    return np.ascontiguousarray(value)
