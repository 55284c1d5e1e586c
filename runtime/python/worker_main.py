"""The program of a worker process, which `clipstep.runtime.worker_process` starts; not for users.

It answers each request from standard input with a message on standard output, until standard input ends.
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
from clipstep.runtime.errors import ClipstepError, EngineError, error_summary
from clipstep.runtime.worker_process import Message, receive, send

PRINTED_BYTES = 1 << 20
RENEW = 77
"""The exit code of a fork that is to be replaced by a new one."""


def limit(memory_bytes: int) -> None:
    """Limit the memory of this process and the size of files that it writes. Only Linux enforces the limit of memory."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTED_BYTES, PRINTED_BYTES))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard), hard))


class Worker:
    """Serves the requests of one process, which holds at most one engine at a time."""

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
        describe_io = getattr(self._engine, "describe_io", None)
        return {"io": None if describe_io is None else describe_io()}, []


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def serve_all(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more. A request that takes too long ends the process, even inside native code."""
    worker = Worker()
    while (message := receive(requests)) is not None:
        if "renew" in message[0]:
            os._exit(RENEW)
        _alarm(message[0]["timeout_s"])
        try:
            answer, arrays = worker.serve(*message)
        except ClipstepError as error:
            answer, arrays = {"refused": str(error), "by_engine": isinstance(error, EngineError)}, []
        except Exception as error:  # Libraries raise errors of any type on a damaged file.
            answer, arrays = {"failed": f"{type(error).__name__}: {error_summary(error)}"}, []
        _alarm(0)
        send(answers, answer, arrays)


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main() -> None:
    """Serve until standard input ends. Ctrl-C is ignored: the parent process handles it and ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(sys.stderr.fileno(), 1)  # Some engines print to standard output.
    for module in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # The code that needs it reports that it is missing.
            importlib.import_module(module)
    if sys.platform != "linux":  # Elsewhere a forked process may not work after such imports.
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
