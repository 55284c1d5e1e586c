"""Makes a network spec of a module in memory, after checking it."""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipstep.export.contract import check_weights
from clipstep.export.sample import sample_frames
from clipstep.network.preprocess import RGB
from clipstep.network.spec import NetworkSpec, check_frames, weights_sha256
from clipstep.runtime.bundle.manifest import FrameSource, ModuleProvenance
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed


def network_of_module(
    module: nn.Module,
    *,
    frames: int,
    size: int,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fps: float,
    sample: Tensor | np.ndarray[Any, Any] | Path | str | None = None,
) -> NetworkSpec:
    """Return the module as a network spec. The module is neither copied, pickled nor changed.

    Args:
        module: the network, in eval mode, on the CPU, with float32 weights.
        frames: T, the frames of a subclip.
        size: height and width of a frame, in pixels.
        labels: the class names.
        mean: what is subtracted from each channel, R G B, in 0..255.
        std: what each channel is then divided by, in 0..255.
        fps: frames per second of the videos that the module was trained on.
        sample: the frames of the golden steps: subclips `(S, frames, size, size, 3)` uint8, or a video's path; None for synthetic scenes.

    Raises:
        ClipstepError: the module is in training mode, on another device or not of float32; a value is not possible for a network; the
            video cannot be used.
    """
    if not isinstance(module, nn.Module):
        raise ClipstepError("the network is not a module", got=type(module).__name__, expected="a torch.nn.Module")
    _check_eval(module)
    check_weights(module)
    frames, size = _whole("frames", frames), _whole("size", size)
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    provenance = ModuleProvenance(
        kind="module",
        source=path,
        weights_sha256=weights_sha256(module.state_dict()),
        config={"frames": frames, "size": size},
        weights_source="module",
    )
    names, means, deviations = _tuple("labels", labels), _numbers("mean", mean), _numbers("std", std)
    subclips, content = _sample(sample, frames, size, means)
    return NetworkSpec(module, frames, size, names, means, deviations, fps, subclips, provenance, content)


def _check_eval(module: nn.Module) -> None:
    """Refuse training mode. Calling `eval()` here would change the caller's module, and not every module can be copied."""
    if "eval" in vars(module):  # torch.export replaces the method by one that fails.
        raise ClipstepError("the module was made by torch.export, and has no eval mode", fix="give the module that was exported, in eval mode")
    training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise ClipstepError(
            "the module is in training mode", got=f"training is True of {listed(training, 3)}", expected="eval mode", fix="call module.eval()"
        )


def _sample(sample: Tensor | np.ndarray[Any, Any] | Path | str | None, frames: int, size: int, mean: Sequence[float]) -> tuple[Tensor, FrameSource]:
    if sample is None or isinstance(sample, Path | str):
        check_frames(frames, size, RGB)
        if len(mean) != RGB:
            raise ClipstepError("mean has a number for each channel", got=mean, expected="3 numbers for RGB", fix="give other frames by sample=")
        return sample_frames(frames, size, None if sample is None else Path(sample))
    if not isinstance(sample, np.ndarray):
        return sample, "sample"
    try:
        return torch.from_numpy(np.ascontiguousarray(sample)), "sample"
    except (TypeError, ValueError) as error:
        raise ClipstepError("the sample cannot be a tensor", got=f"an array of {sample.dtype}", expected="an array of uint8") from error


def _whole(name: str, value: Any) -> int:
    """Return the number as an int; NumPy's integers are accepted too."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError as error:
        raise ClipstepError(f"{name} must be a whole number", got=repr(value), expected="an int of at least 1") from error


def _tuple(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ClipstepError(f"{name} must be a list of class names", got=repr(values)[:80], expected="a list of texts")
    return tuple(values)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ClipstepError(f"{name} has a number for each channel", got=repr(values)[:80], expected="3 numbers, of 0..255") from error
