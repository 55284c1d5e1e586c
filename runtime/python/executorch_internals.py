"""The parts of ExecuTorch that are not public and that the runtime uses, to run a file and to read one. No other module of the runtime uses any.

The public `executorch.runtime` cannot set the number of threads and always copies the outputs, and ExecuTorch has no public reader of its files.
What writes files is in `clipstep.export.compat`, which only exports import. This module imports ExecuTorch, and with it PyTorch, only when one of
its functions is called.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clipstep.runtime.supported import SupportedRange

EXECUTORCH = SupportedRange("executorch", "1.5.1", "1.6", version_in="executorch.version")
READER = "executorch.exir._serialize._program"
"""The module that `program_reader` imports."""
EXPORTER, WARNINGS, BINDING = "executorch.exir", "executorch.exir._warnings", "executorch.extension.pybindings.portable_lib"


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
    with EXECUTORCH.internals(), _without_exporter():
        from executorch.extension.pybindings import portable_lib

        return Binding(portable_lib._load_for_executorch, portable_lib._threadpool_get_thread_count, portable_lib._unsafe_reset_threadpool)


@contextmanager
def _without_exporter() -> Iterator[None]:
    """Return a context in which the binding is imported without ExecuTorch's exporter, unless that is imported already.

    The binding warns that it is experimental, by a class of the exporter's package. To import that package takes longer than to import PyTorch and
    the binding, and more memory than a model.
    """
    import executorch

    package = None if {EXPORTER, BINDING} & sys.modules.keys() else importlib.util.find_spec(EXPORTER)
    folder = next(iter(package.submodule_search_locations or ()), None) if package else None
    if folder is None or not Path(folder, "_warnings.py").is_file():
        yield
        return
    spec = importlib.util.spec_from_file_location(WARNINGS, Path(folder, "_warnings.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[WARNINGS] = importlib.util.module_from_spec(spec)
    stand_in = executorch.exir = SimpleNamespace(_warnings=module)
    try:
        spec.loader.exec_module(module)
        yield
    finally:  # Another thread may have imported the exporter meanwhile.
        if sys.modules.get(WARNINGS) is module:
            del sys.modules[WARNINGS]
        if executorch.exir is stand_in:
            del executorch.exir


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
