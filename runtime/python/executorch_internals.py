"""All that clipstep runs and reads ExecuTorch's files by and that is not public there.

`executorch.runtime`, the public way to run a file, neither sets the number of threads nor gives outputs without a copy, and nothing public
reads a file. What writes one is in `clipstep.export.compat`: this package imports ExecuTorch, which brings PyTorch, only when it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipstep.runtime.supported import SupportedRange

EXECUTORCH = SupportedRange("executorch", "1.5.1", "1.6", version_in="executorch.version")
BINDING = "executorch.extension.pybindings.portable_lib"
"""The module of `binding`."""
READER = "executorch.exir._serialize._program"
"""The module of `program_reader`."""


@dataclass(frozen=True)
class Binding:
    """ExecuTorch's runtime in this process."""

    load: Callable[..., Any]
    """Loads the file of that name, a string, with `enable_etdump=True` if it is to be profiled. What it gives has `forward`, `method_meta`,
    `method_names`, `run_method` and `write_etdump_result_to_file`."""
    thread_count: Callable[[], int]
    set_thread_count: Callable[[int], None]
    """Replaces the thread pool of the process: nothing may be using it."""


def binding() -> Binding:
    """ExecuTorch's runtime.

    Raises:
        ClipstepError: the installed version is not supported, or is incomplete.
        ModuleNotFoundError: ExecuTorch is not installed.
    """
    with EXECUTORCH.internals():
        from executorch.extension.pybindings import portable_lib

        return Binding(portable_lib._load_for_executorch, portable_lib._threadpool_get_thread_count, portable_lib._unsafe_reset_threadpool)


def program_reader() -> tuple[Callable[[bytes], Any], Any]:
    """What reads the program in a file's bytes, and the module of the classes that the program is made of.

    Raises:
        ClipstepError: the installed version is not supported, or is incomplete.
        ModuleNotFoundError: ExecuTorch is not installed.
    """
    with EXECUTORCH.internals():
        from executorch.exir import schema
        from executorch.exir._serialize._program import deserialize_pte_binary
    return lambda data: deserialize_pte_binary(data).program, EXECUTORCH.guarded(schema)
