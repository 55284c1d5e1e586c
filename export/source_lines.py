"""Finds the user's source line that an error, a running operation, or an operation of an exported graph comes from."""

import enum
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

import torch
from torch import fx

from clipstep.network import states

LIBRARIES = tuple(str(Path(file).parent) for file in (torch.__file__, __file__, states.__file__))
"""The code of torch, of the export itself, and of what it has around networks, such as the normalisation of frames."""
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
UNKNOWN = "an unknown line"
FILE = re.compile(r'\s*File "([^"]+)", line (\d+)')
"""The start of a line of a traceback."""


def is_user_file(file: str) -> bool:
    """Whether a file is the user's or of a package that they use: not of Python, torch or the export, and not generated code."""
    if file.startswith((*LIBRARIES, "<")):
        return False
    return not file.startswith(STANDARD_LIBRARY) or any(folder in file for folder in ("site-packages", "dist-packages"))


def is_user_class(kind: type) -> bool:
    """Whether a class is defined in a file of the user's (`is_user_file`), and is no enumeration, which never changes."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and is_user_file(file) and not issubclass(kind, enum.Enum)


def line_of_error(error: BaseException) -> str:
    """Return the innermost line of the user's in the traceback of an error, or else in its message, in which torch names that of a node."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_file(frame.filename)]
    if frames:
        return f'File "{frames[-1].filename}", line {frames[-1].lineno}, in {frames[-1].name}'
    return _line_in(str(error))


def stack_to_user_code(frame: FrameType | None = None) -> list[FrameType]:
    """Return the stack frames from `frame` (by default the caller of this function) outwards, up to the innermost one of the user's code.

    The user's is the last of them; the list is empty if there is none.
    """
    frame, stack = frame or sys._getframe(1), []
    while frame is not None:
        stack.append(frame)
        if is_user_file(frame.f_code.co_filename):
            return stack
        frame = frame.f_back
    return []


def line_of_frame(frame: FrameType) -> str:
    """Return `FILE:LINE, in NAME`."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


def line_of_node(node: fx.Node) -> str:
    """Return the innermost line of the user's in the stack trace that torch.export recorded for a node."""
    return _line_in(node.meta.get("stack_trace") or "")


def place_of_node(node: fx.Node) -> str | None:
    """Return `line_of_node` as `FILE:LINE`, without folders; None if it is not known."""
    found = FILE.match(line_of_node(node))
    return f"{Path(found[1]).name}:{found[2]}" if found else None


def _line_in(trace: str) -> str:
    """Return the last of the lines `File "...", line ...` that is in a file of the user's."""
    lines = [line.strip() for line in trace.splitlines() if (file := FILE.match(line)) and is_user_file(file[1])]
    return lines[-1] if lines else UNKNOWN


def describe_error(error: BaseException) -> str:
    """Return the type of an error and the first line of its message; in torch's messages, advice follows after it."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def module_path(node: fx.Node) -> str:
    """Return the path of the innermost module that an operation of a graph is from, such as `network.stages.0`; empty if it is from none."""
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return paths[-1] if paths else ""
