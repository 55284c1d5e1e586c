"""How an engine is described, as an entry of `clipstep.runtime.engines.ENGINES`. Neither the table nor this module needs numpy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipstep.runtime.engine import Engine


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine."""

    name: str
    display_name: str
    target: str
    """The target whose artifacts it runs."""
    load: Callable[..., "Engine"]
    """Loads an artifact. It is called with `(path, threads)`, or with `(path, threads, spinning)` if `spins` is true."""
    spins: bool
    """Whether its threads can be told to wait busily between steps."""
    libraries: tuple[str, ...]
    """The distributions that it needs. It counts as installed if modules of these names can be found. Benchmark records note their versions."""
    module: str
    """The module that a process imports before it loads a file, so that the import counts neither as the file's time nor as its memory."""
    extra: str | None
    """The extra of clipstep that brings the libraries; None if every installation has them."""
    threads_used: Callable[[], int] | None = None
    """Returns how many threads the engine reports that it uses; None if it cannot be asked."""
