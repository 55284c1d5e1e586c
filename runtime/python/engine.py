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
            EngineError: the engine fails; this process was forked from the one that loaded it, and lacks its threads.
        """

    def close(self) -> None:
        """Free the memory; using the engine afterwards is an error of the caller's."""


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine, as an entry of `clipstep.runtime.engines.ENGINES`."""

    name: str
    display_name: str
    target: str
    """The target whose artifacts it runs."""
    load: Callable[..., Engine]
    """`(path, threads)`, and `spinning` after them if `spins`."""
    spins: bool
    """Whether its threads can be told to wait busily between steps."""
    libraries: tuple[str, ...]
    """The distributions that it needs, which are also the modules looked for to see whether it is installed. Records note their versions."""
    module: str
    """The module that a process imports before it loads a file, so that the import counts neither as the file's time nor as its memory."""
    extra: str | None
    """The extra of clipstep that brings the libraries; None if every installation has them."""
    threads_used: Callable[[], int] | None = None
    """Returns how many threads the engine says that it uses; None for an engine that does not say."""
