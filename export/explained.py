"""Turns exceptions of the libraries that an export uses into errors that a user understands."""

import contextlib
from collections.abc import Iterator

from clipstep.export.source_lines import UNKNOWN, describe_error, line_of_error
from clipstep.runtime.errors import ClipstepError

TOOLS = ("coremltools", "executorch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "numpy", "sympy", "torchao")
"""The packages whose lines say nothing about the network."""


@contextlib.contextmanager
def explained(what: str, fix: str) -> Iterator[None]:
    """Turn any exception inside into a `ClipstepError` with the original as its cause: the writers' own errors say more, this is the last net.

    Ctrl-C stays what it is, also where a library has made another error of it, and so does a lack of memory.

    Raises:
        ClipstepError: it says `what` is wrong, what was raised, the line of the network that it comes from, if any, and how to go on.
    """
    try:
        yield
    except (ClipstepError, MemoryError):
        raise
    except Exception as error:  # Libraries raise errors of any type.
        if _interrupted(error):
            raise KeyboardInterrupt from error
        line = line_of_error(error)
        of_tool = line == UNKNOWN or any(f"/{tool}/" in line.replace("\\", "/") for tool in TOOLS)
        comes = "" if of_tool else f"it comes from {line}; "
        raise ClipstepError(what, got=describe_error(error), fix=f"{comes}{fix}") from error


def _interrupted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
