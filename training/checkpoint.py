"""A training's whole state in one file, replaced atomically, so that a training can go on after it was killed.

A safetensors file: the tensors by name, all else as JSON in its metadata. Never a pickle.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipstep.runtime.errors import ClipstepError, first_line
from clipstep.runtime.places import check_file

KEY = "clipstep"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes nested dictionaries and lists of tensors and JSON values; the previous file stays until the new one is whole.

    Raises:
        ClipstepError: the file cannot be written (the disk is full, say).
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
        raise ClipstepError(f"{path}: cannot be written", got=error.strerror, fix=earlier) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What ``save_checkpoint`` was given; keys of dictionaries that were numbers come as text.

    Raises:
        ClipstepError: there is no such file, or it is not one that ``save_checkpoint`` wrote.
    """
    check_file(path, "the checkpoint of an earlier training", fix="train without --resume")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {})[KEY]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  It is no dictionary.
        state: dict[str, Any] = _with_tensors(json.loads(text), tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ClipstepError(f"{path}: cannot be read", got=first_line(error), fix="delete it and train anew") from error
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
