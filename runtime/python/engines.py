"""The table of engines, which execute artifacts on this machine: a new one is a file `engine_NAME.py` and a line here."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from clipstep.runtime.cores import available_cores
from clipstep.runtime.engine_executorch import EXECUTORCH
from clipstep.runtime.engine_info import EngineInfo
from clipstep.runtime.engine_onnxruntime import ONNXRUNTIME
from clipstep.runtime.errors import ClipstepError, EngineError, error_summary
from clipstep.runtime.install_hints import install_extra

if TYPE_CHECKING:
    from clipstep.runtime.engine import Engine

ENGINES: dict[str, EngineInfo] = {
    ONNXRUNTIME.name: ONNXRUNTIME,
    EXECUTORCH.name: EXECUTORCH,
}
"""The engines by name: `onnxruntime` and `executorch`. Each says which target it runs and which extra installs it."""


def engine_of(target: str) -> EngineInfo | None:
    """The engine that runs artifacts of that target on this machine; None if there is none."""
    return next((info for info in ENGINES.values() if info.target == target), None)


def load_engine(name: str, path: Path, threads: int, *, spinning: bool = False) -> "Engine":
    """Load the artifact at `path` into the engine of that name. With `spinning` its threads wait busily between steps.

    Raises:
        ClipstepError: an unknown engine, one that is not installed or has no such setting, a thread count this machine does not
            have, or a file that the engine refuses.
    """
    info = engine_info(name)
    check_threads(threads)
    if spinning and not info.spins:
        able = ", ".join(other for other, facts in ENGINES.items() if facts.spins)
        raise ClipstepError(f"{name} cannot let its threads spin (wait busily)", expected=f"spinning with {able} only")
    try:
        return info.load(path, threads, spinning) if info.spins else info.load(path, threads)
    except ModuleNotFoundError as error:
        raise ClipstepError(f"engine {name} needs {error.name}, which is not installed", fix=_install(info)) from error
    except ImportError as error:  # Such as a library built for another version of numpy.
        raise EngineError(f"engine {name} cannot be imported", got=error_summary(error), fix=f"install it anew: {_install(info)}") from error


def missing_library(name: str) -> str | None:
    """Say which libraries the engine of that name lacks, and the command that installs them; None if it is installed. Imports nothing."""
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
    """Check that this process may use that many cores.

    Raises:
        ClipstepError: it may use fewer.
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
