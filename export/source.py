"""The line of a user's code behind an error, or behind an operation of an exported graph."""

import importlib
import traceback
from pathlib import Path

import torch
from torch import fx

NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(importlib.__file__).parent), "<")
"""torch's, Python's own and generated code."""


def line_of_error(error: BaseException) -> str:
    """The innermost line of the error's traceback that is the user's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_THEIRS)]
    return f'File "{frames[-1].filename}", line {frames[-1].lineno}, in {frames[-1].name}' if frames else "an unknown line"


def line_of_node(node: fx.Node) -> str:
    """The innermost line of the user's in the traceback that torch.export kept."""
    trace = (node.meta.get("stack_trace") or "").splitlines()
    lines = [line.strip() for line in trace if line.strip().startswith("File ") and str(Path(torch.__file__).parent) not in line]
    return lines[-1] if lines else "an unknown line"


def first_line(error: BaseException) -> str:
    """What went wrong, without the advice that follows in torch's messages."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
