"""What executes an artifact on this machine, behind one small interface."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clipstep.runtime.cores import available_cores
from clipstep.runtime.engine_executorch import ExecuTorch
from clipstep.runtime.engine_onnxruntime import OnnxRuntime
from clipstep.runtime.errors import ClipstepError, EngineError, first_line
from clipstep.runtime.install import install_extra

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded artifact. It may be shared by threads."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Frames and states in the manifest's order to logits and next states; inputs are not written to.

        Raises:
            EngineError: the engine fails; this process was forked from the one that loaded it, and lacks its threads.
        """

    def close(self) -> None:
        """Gives the memory back; using the engine afterwards is an error of the caller's."""


@dataclass(frozen=True)
class EngineInfo:
    """How an engine is reached: the target it runs, the extra that it needs, how it loads a file, and whether its threads can be told
    to spin between steps, which ``load`` then takes too. ``libraries`` are the modules that it imports."""

    target: str
    extra: str | None
    load: Callable[..., Engine]
    spins: bool
    libraries: tuple[str, ...] = ()


ENGINES = {
    "onnxruntime": EngineInfo("onnx", None, OnnxRuntime, True, ("onnxruntime",)),
    "executorch": EngineInfo("executorch", "export", ExecuTorch, False, ("executorch", "torch")),
}
"""The engines by name: `onnxruntime` and `executorch`. Each says which target it runs and which extra installs it."""


def load_engine(name: str, path: Path, threads: int, *, spinning: bool = False) -> Engine:
    """The artifact at ``path`` in the engine of that name. With ``spinning`` its threads wait busily between steps.

    Raises:
        ClipstepError: an unknown engine, one that is not installed or has no such setting, a thread count this machine does not
            have, or a file that the engine refuses.
    """
    info = engine_info(name)
    check_threads(threads)
    if spinning and not info.spins:
        able = ", ".join(other for other, facts in ENGINES.items() if facts.spins)
        raise ClipstepError(f"{name} does not let its threads spin", expected=f"spinning with {able} only")
    try:
        return info.load(path, threads, spinning) if info.spins else info.load(path, threads)
    except ModuleNotFoundError as error:
        raise ClipstepError(f"engine {name} needs {error.name}, which is not installed", fix=_install(info)) from error
    except ImportError as error:  # Such as a library built for another version of numpy.
        raise EngineError(f"engine {name} cannot be imported", got=first_line(error), fix=f"install it anew: {_install(info)}") from error


def missing_library(name: str) -> str | None:
    """What the engine of that name lacks, and the command that installs it; None if it is installed. Nothing is imported."""
    info = engine_info(name)
    missing = [library for library in info.libraries if not _is_installed(library)]
    are = "are" if len(missing) > 1 else "is"
    return f"engine {name} needs {', '.join(missing)}, which {are} not installed; {_install(info)}" if missing else None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _install(info: EngineInfo) -> str:
    return "pip install onnxruntime" if info.extra is None else install_extra(info.extra)


def check_threads(threads: int) -> None:
    """Checks that this process may use that many cores.

    Raises:
        ClipstepError: it may not.
    """
    cores = available_cores()
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
