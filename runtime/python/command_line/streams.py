"""The standard streams of commands: any text can be written to them, JSON goes to standard output, and what libraries print can be hidden.

Hiding redirects streams of the whole process, including the output of other threads. Only commands do it, because each has a process of its
own; no public function does.
"""

import contextlib
import io
import json
import logging
import os
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

from clipstep.runtime.refcounted_context import RefCountedContext

PACKAGES = ("site-packages", "dist-packages")
"""The names of folders of installed libraries."""
NATIVE = "Triggered internally at"
"""A text that is in all warnings of torch's native code. The call stack does not tell where these come from."""


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Write JSON to standard output, as ASCII unless its encoding is UTF-8."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=encoding != "utf8") + "\n")
    sys.stdout.flush()


def prepare_streams() -> None:
    """Make sure that the standard streams of this process exist and accept any text.

    A stream that is closed is opened on the null device: otherwise the next file to be opened would get its descriptor. Characters that the
    encoding lacks, such as those of a label under a C locale or of a file name that is not UTF-8, are escaped.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  It stays open.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _stderr_to_nowhere() -> Iterator[None]:
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # There is no standard error.
        yield
        return
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  os.devnull is no path of a file.
        os.dup2(nowhere.fileno(), 2)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def _all_to_nowhere() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _is_of_a_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if str(frame.f_globals.get("__name__")).startswith("clipstep."):
        return False
    return file.startswith((sysconfig.get_paths()["stdlib"], "<")) or any(folder in Path(file).parts for folder in PACKAGES)


def _shown_if_theirs(show: Callable[..., None]) -> Callable[..., None]:
    """Return a `warnings.showwarning` that passes only warnings of the user's code and of clipstep on to `show`.

    Which code raised the warning is read from the call stack. The file and line that the warning names do not tell: a library can set them with
    `stacklevel`, and often names the user's line that called it.
    """

    def shown(message: Warning | str, *about: Any, **more: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename == warnings.__file__:
            frame = frame.f_back
        if not _is_of_a_library(frame) and NATIVE not in str(message):
            show(message, *about, **more)

    return shown


@contextlib.contextmanager
def library_warnings_hidden() -> Iterator[None]:
    """Hide the warnings of libraries, which the user cannot fix; those of the user's code and of clipstep are shown."""
    show = warnings.showwarning
    warnings.showwarning = _shown_if_theirs(show)
    try:
        yield
    finally:
        warnings.showwarning = show


_STDERR, _ALL = RefCountedContext(_stderr_to_nowhere), RefCountedContext(_all_to_nowhere)


def quiet_stderr() -> AbstractContextManager[None]:
    """Hide what native libraries and imports write to file descriptor 2. Errors are still raised as exceptions."""
    return _STDERR


def quiet() -> AbstractContextManager[None]:
    """Hide what `quiet_stderr` hides, and standard output, progress bars, warnings and log messages. Errors are still raised as exceptions."""
    return _ALL
