"""The other end of ``clipstep.runtime.isolated``. Not for users: that module starts it.

It answers each request on standard input with one on standard output, until standard input ends.
"""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.errors import ClipstepError, EngineError, first_line
from clipstep.runtime.isolated import Message, receive, send

PRINTED_BYTES = 1 << 20
RENEW = 77
"""The exit code of a copy that makes way for a fresh one."""


def limit(memory_bytes: int) -> None:
    """Bounds what this process may take: what is asked for beyond it fails there. Only Linux counts it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTED_BYTES, PRINTED_BYTES))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard), hard))


class Worker:
    """What the process holds: at most one engine, and the functions that are called."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def serve(self, request: dict[str, Any], arrays: list[Array]) -> Message:
        if "run" in request:
            assert self._engine is not None
            return {}, list(self._engine.run(arrays))
        limit(request["memory_bytes"])
        arguments = {**request["arguments"], "path": Path(request["arguments"]["path"])}
        if "call" in request:
            return {"result": _function(request["call"])(**arguments)}, []
        if self._engine is not None:
            self._engine.close()
        self._engine = _function(request["load"])(**arguments)
        declared = getattr(self._engine, "declared", None)
        return {"declared": None if declared is None else declared()}, []


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def serve_all(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more. A request that takes too long ends the process, whatever native code does."""
    worker = Worker()
    while (message := receive(requests)) is not None:
        if "renew" in message[0]:
            os._exit(RENEW)
        _alarm(message[0]["timeout_s"])
        try:
            answer, arrays = worker.serve(*message)
        except ClipstepError as error:
            answer, arrays = {"refused": str(error), "by_engine": isinstance(error, EngineError)}, []
        except Exception as error:  # Libraries raise what they like on a damaged file.
            answer, arrays = {"failed": f"{type(error).__name__}: {first_line(error)}"}, []
        _alarm(0)
        send(answers, answer, arrays)


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main() -> None:
    """Serves until standard input ends. Ctrl-C is the parent's business, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(sys.stderr.fileno(), 1)  # Some engines print what they find.
    for module in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # Whoever needs it says so.
            importlib.import_module(module)
    if sys.platform != "linux":  # Elsewhere a copy of a process with such libraries may not run.
        serve_all(requests, answers)
        return
    while True:
        copy = os.fork()
        if copy == 0:
            serve_all(requests, answers)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        if status == 0:
            return
        send(answers, {"renewed": True} if status == RENEW else {"died": status})


if __name__ == "__main__":
    main()
