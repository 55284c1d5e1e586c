"""The parts of ExecuTorch that are not public and that the runtime uses, to run a file and to read one. No other module of the runtime uses any.

The public `executorch.runtime` cannot set the number of threads and always copies the outputs, and ExecuTorch has no public reader of its files.
What writes files is in `clipstep.export.compat`, which only exports import. This module imports ExecuTorch, and with it PyTorch, only when one of
its functions is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipstep.runtime.supported import SupportedRange

EXECUTORCH = SupportedRange("executorch", "1.5.1", "1.6", version_in="executorch.version")
BINDING = "executorch.extension.pybindings.portable_lib"
"""The module that `binding` imports."""
READER = "executorch.exir._serialize._program"
"""The module that `program_reader` imports."""


@dataclass(frozen=True)
class Binding:
    """ExecuTorch's runtime in this process."""

    load: Callable[..., Any]
    """Loads the file at a path, given as a string; with `enable_etdump=True` it can be profiled. The result has `forward`, `method_meta`,
    `method_names`, `run_method` and `write_etdump_result_to_file`."""
    thread_count: Callable[[], int]
    set_thread_count: Callable[[int], None]
    """Replaces the thread pool of the process, which nothing may be using."""


def binding() -> Binding:
    """Return ExecuTorch's runtime.

    Raises:
        ClipstepError: the installed version is not supported, or is incomplete.
        ModuleNotFoundError: ExecuTorch is not installed.
    """
    with EXECUTORCH.internals():
        from executorch.extension.pybindings import portable_lib

        return Binding(portable_lib._load_for_executorch, portable_lib._threadpool_get_thread_count, portable_lib._unsafe_reset_threadpool)


def program_reader() -> tuple[Callable[[bytes], Any], Any]:
    """Return a function that reads the program in a file's bytes, and the module with the classes that a program consists of.

    Raises:
        ClipstepError: the installed version is not supported, or is incomplete.
        ModuleNotFoundError: ExecuTorch is not installed.
    """
    with EXECUTORCH.internals():
        from executorch.exir import schema
        from executorch.exir._serialize._program import deserialize_pte_binary
    return lambda data: deserialize_pte_binary(data).program, EXECUTORCH.guarded(schema)
