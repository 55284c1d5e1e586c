"""A user's own network as a run: whatever ``nn.Module`` a factory gives, with not a word of clipstep in it."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipstep.export.source import first_line, line_of_error
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.synthetic import synthetic_subclips
from clipstep.training.data.subclips import read_subclips
from clipstep.training.data.text import read_lines, unquoted
from clipstep.training.run import Run, RunInfo
from clipstep.training.weights import fill, read_state

SAMPLE_SUBCLIPS = 8


@dataclass(frozen=True)
class Facts:
    """What a network alone does not say: ``mean`` and ``deviation`` are a channel's, in 0..255; ``fps`` that of its videos."""

    frames: int
    size: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    fps: float


def own_run(spec: str, facts: Facts, weights: Path | None = None, video: Path | None = None) -> Run:
    """The network that the factory ``package.module:name`` gives, in eval mode, with the facts that a run has.

    Its golden steps will be on the subclips of ``video``, or on synthetic ones.

    Raises:
        ClipstepError: the factory cannot be imported, fails, or gives no module; the weights do not fit; the video cannot be used.
    """
    network = load_network(spec)
    if weights is not None:
        fill(network, read_state(weights), weights, "give the factory of the network that was trained")
    info = RunInfo(
        spec, {"frames": facts.frames, "size": facts.size}, facts.classes, facts.mean, facts.deviation, facts.fps, _sha256(network.state_dict())
    )
    if video is not None:
        return Run(network.eval(), info, read_subclips(video, facts.frames, facts.size)[:SAMPLE_SUBCLIPS], "video")
    drawn = synthetic_subclips(SAMPLE_SUBCLIPS, facts.frames, facts.size, facts.size)
    return Run(network.eval(), info, torch.from_numpy(drawn), "synthetic")


def load_network(spec: str) -> nn.Module:
    """What the factory gives: a function or a class that takes nothing, or a module itself.

    Raises:
        ClipstepError: it cannot be imported, fails, or gives no module.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ClipstepError("--model names no factory", got=spec, expected="package.module:factory")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if module == error.name or module.startswith(f"{error.name}."):
            raise ClipstepError(
                f"--model {spec}: cannot be imported", got=str(error), expected="a module that is installed, or lies in this folder"
            ) from error
        raise _failed(spec, error) from error
    except Exception as error:  # Whatever a user's file raises.
        raise _failed(spec, error) from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(n for n, value in vars(found).items() if callable(value) and not n.startswith("_")))
            raise ClipstepError(f"--model {spec}: no such name", got=part, expected=f"one of {names or 'nothing: it is empty'}")
        found = getattr(found, part)
    try:
        network = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # Whatever a user's factory raises.
        raise _failed(spec, error) from error
    if not isinstance(network, nn.Module):
        raise ClipstepError(f"--model {spec}: gives no network", got=type(network).__name__, expected="a torch.nn.Module")
    return network


def read_labels(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line.

    Raises:
        ClipstepError: it cannot be read, is empty, or names a class twice.
    """
    lines = [(number, unquoted(line)) for number, line in read_lines(path, expected="a text file with a class a line")]
    first: dict[str, int] = {}
    for number, label in lines:
        if first.setdefault(label, number) != number:
            raise ClipstepError(f"{path}:{number}: the class is named twice", got=f"{label}, as in line {first[label]}", expected="each class once")
    labels = tuple(first)
    return labels


def _failed(spec: str, error: Exception) -> ClipstepError:
    return ClipstepError(f"--model {spec}: fails", got=first_line(error), fix=f"it comes from {line_of_error(error)}")


def _sha256(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
