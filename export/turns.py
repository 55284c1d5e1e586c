"""Makes the threads of a process take turns with a network: while one traces a module, its weights are not numbers."""

import contextlib
import threading
from collections.abc import Iterator

_TURN = threading.RLock()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one thread in at a time, because torch.export puts stand-ins into the module that it traces, and coremltools' builder has globals."""
    with _TURN:
        yield
