"""What an engine is: the interface that a loaded artifact has."""

from collections.abc import Sequence
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
