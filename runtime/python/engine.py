"""What an engine is: the interface that a loaded artifact has, and how an engine is described."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded artifact. It may be shared by threads."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Take frames and states in the manifest's order and return logits and next states; inputs are not written to.

        Raises:
            EngineError: the engine fails; or this process was forked from the one that loaded the artifact, and so has no copy of its threads.
        """

    def close(self) -> None:
        """Free the memory. The caller must not use the engine afterwards."""


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine, as an entry of `clipstep.runtime.engines.ENGINES`."""

    name: str
    display_name: str
    target: str
    """The target whose artifacts it runs."""
    load: Callable[..., Engine]
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
