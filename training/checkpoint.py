"""The checkpoint: the whole state of a training in one file, written atomically, so that a training that was killed can resume.

It is a safetensors file with the tensors by name and everything else as JSON in its metadata; never a pickle.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.path_checks import check_file

KEY = "clipstep"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors and JSON values; the previous file is replaced once the new one is complete.

    Raises:
        ClipstepError: the file cannot be written, for example because the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_without_tensors(state, "", tensors))
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(safetensors.torch.save(tensors, {KEY: text}))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        earlier = "the earlier one is whole; make room, then go on with --resume" if path.exists() else "make room"
        raise ClipstepError(f"{path}: cannot be written", got=error.strerror or error, fix=earlier) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` was given; dictionary keys that were numbers come back as text.

    Raises:
        ClipstepError: there is no such file, or `save_checkpoint` did not write it.
    """
    check_file(path, "the checkpoint of an earlier training", fix="train without --resume")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {})[KEY]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  An open file, not a dictionary.
        state: dict[str, Any] = _with_tensors(json.loads(text), tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ClipstepError(f"{path}: cannot be read", got=error_summary(error), fix="delete it and train anew") from error
    return state


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {str(key): _without_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value
