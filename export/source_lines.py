"""The line of a user's code behind an error, an operation that runs now, or an operation of an exported graph."""

import enum
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

import torch
from torch import fx

NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
"""torch's code and that of the export itself."""
STANDARD = sysconfig.get_paths()["stdlib"]
UNKNOWN = "an unknown line"


def is_theirs(file: str) -> bool:
    """Whether a file is a user's, or that of a package which they use: not Python's, not torch's, not generated."""
    if file.startswith((*NOT_THEIRS, "<")):
        return False
    return not file.startswith(STANDARD) or any(folder in file for folder in ("site-packages", "dist-packages"))


def is_their_class(kind: type) -> bool:
    """Whether a class is from a user's file, or from a package that they use; not so for an enumeration, which never changes."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and is_theirs(file) and not issubclass(kind, enum.Enum)


def line_of_error(error: BaseException) -> str:
    """The innermost line of the error's traceback that is the user's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_theirs(frame.filename)]
    return f'File "{frames[-1].filename}", line {frames[-1].lineno}, in {frames[-1].name}' if frames else UNKNOWN


def frames_to_theirs(frame: FrameType | None = None) -> list[FrameType]:
    """The stack from ``frame`` (unless given, from here) out to the innermost frame of the user's; that one is the last."""
    frame, stack = frame or sys._getframe(1), []
    while frame is not None:
        stack.append(frame)
        if is_theirs(frame.f_code.co_filename):
            return stack
        frame = frame.f_back
    return []


def line_of_frame(frame: FrameType) -> str:
    """``FILE:LINE, in NAME``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


def line_of_node(node: fx.Node) -> str:
    """The innermost line of the user's in the traceback that torch.export kept."""
    trace = (node.meta.get("stack_trace") or "").splitlines()
    lines = [line.strip() for line in trace if line.strip().startswith("File ") and str(Path(torch.__file__).parent) not in line]
    return lines[-1] if lines else UNKNOWN


def describe_error(error: BaseException) -> str:
    """The type of an error and the first line of its message, without the advice that follows in torch's messages."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
