"""Weights from files of other programs, into a network, or an error that says what does not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clipstep.runtime.errors import ClipstepError, first_line

SHOWN = 5


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of one that ``torch.save`` wrote, bare or under ``state_dict``; without ``module.``
    before their names.

    Raises:
        ClipstepError: there is no such file, or it holds something else than tensors (it is never unpickled).
    """
    if not path.is_file():
        raise ClipstepError(f"{path}: no such file", expected="a checkpoint: safetensors, or what torch.save wrote", fix="check the path")
    try:
        loaded: Any = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever unpickling makes of another kind of file.
        raise ClipstepError(f"{path}: cannot be read", got=first_line(error), expected="a state dict of tensors") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ClipstepError(f"{path}: holds no state dict", got=type(loaded).__name__, expected="tensors by name")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: Path, fix: str) -> None:
    """Puts the weights into the network; ``fix`` is what to do where a shape does not fit.

    Raises:
        ClipstepError: a tensor is missing, is one too many, or has another shape: another architecture or number of classes.
    """
    wanted = network.state_dict()
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or extra:
        got = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in (("missing", missing), ("extra", extra)) if names)
        raise ClipstepError(f"{source}: is of another architecture", got=got, expected=f"the {len(wanted)} tensors of {type(network).__name__}")
    for name, value in wanted.items():
        if value.shape != weights[name].shape:
            raise ClipstepError(f"{source}: {name} has another shape", got=tuple(weights[name].shape), expected=tuple(value.shape), fix=fix)
    network.load_state_dict(dict(weights))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
