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
from clipstep.export.turns import one_at_a_time
from clipstep.network.inputs import VIDEO, Images, Joints, NetworkInput
from clipstep.network.spec import NetworkSpec, check_frames, check_normalisation, weights_sha256
from clipstep.runtime.bundle.manifest import FrameSource, ModuleProvenance
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed


@one_at_a_time()
def network_of_module(
    module: nn.Module,
    *,
    frames: int,
    size: int | None = None,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fps: float,
    sample: Tensor | np.ndarray[Any, Any] | Path | str | None = None,
    input: Images | Joints | None = None,
) -> NetworkSpec:
    """Return the module as a network spec. The module is neither copied, pickled nor changed.

    Args:
        module: the network, in eval mode, on the CPU, with float32 weights.
        frames: T, the frames of a subclip.
        size: height and width of a frame, in pixels; None for joints.
        labels: the class names.
        mean: what is subtracted from each channel, R G B, in 0..255; of another input on its own scale.
        std: what each channel is then divided by, on the same scale.
        fps: frames per second of the videos that the module was trained on.
        sample: the frames of the golden steps: subclips `(S, frames, size, size, 3)` uint8 or of another input's shape and type, or the path of a
            video or of a `.npy` file of them; None for synthetic ones.
        input: what a frame is, if not RGB.

    Raises:
        ClipstepError: the module is in training mode, on another device or not of float32; a value is not possible for a network; the
            video cannot be used.
    """
    if not isinstance(module, nn.Module):
        raise ClipstepError("the network is not a module", got=type(module).__name__, expected="a torch.nn.Module")
    _check_eval(module)
    check_weights(module)
    frames = _whole("frames", frames)
    size = size_of(input, None if size is None else _whole("size", size))
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    provenance = ModuleProvenance(
        kind="module",
        source=path,
        weights_sha256=weights_sha256(module.state_dict()),
        config={"frames": frames, "joints" if isinstance(input, Joints) else "size": size},
        weights_source="module",
    )
    names, means, deviations = _tuple("labels", labels), _numbers("mean", mean), _numbers("std", std)
    given: NetworkInput = VIDEO if input is None else input
    subclips, content = _sample(sample, given, frames, size, means, deviations)
    return NetworkSpec(module, frames, size, names, means, deviations, fps, subclips, provenance, content, input=given)


def _check_eval(module: nn.Module) -> None:
    """Refuse training mode. Calling `eval()` here would change the caller's module, and not every module can be copied."""
    if "eval" in vars(module):  # torch.export replaces the method by one that fails.
        raise ClipstepError("the module was made by torch.export, and has no eval mode", fix="give the module that was exported, in eval mode")
    training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise ClipstepError(
            "the module is in training mode", got=f"training is True of {listed(training, 3)}", expected="eval mode", fix="call module.eval()"
        )


def size_of(given: NetworkInput | None, size: int | None) -> int:
    """Return the size of a network's frames, which is the number of joints of a skeleton.

    Raises:
        ClipstepError: there is none where it is needed, or one beside joints; or `given` is no input.
    """
    if given is not None and not isinstance(given, NetworkInput):
        raise ClipstepError(
            "input says what a frame is", got=repr(given)[:80], expected="Images(...) or Joints(...) of clipstep.network, or None for RGB"
        )
    if isinstance(given, Joints):
        if size is not None:
            raise ClipstepError("joints have no size in pixels", got=size, fix="leave size out")
        return given.joints
    if size is None:
        raise ClipstepError("size is missing: the height and width of a frame, in pixels")
    return size


def _sample(
    sample: Tensor | np.ndarray[Any, Any] | Path | str | None,
    given: NetworkInput,
    frames: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Tensor, FrameSource]:
    if sample is None or isinstance(sample, Path | str):
        check_normalisation(mean, std, given)
        check_frames(frames, size, len(mean), given)
        return sample_frames(given, frames, size, None if sample is None else Path(sample), mean, std)
    if not isinstance(sample, np.ndarray):
        return sample, "sample"
    try:
        return torch.from_numpy(np.ascontiguousarray(sample)), "sample"
    except (TypeError, ValueError) as error:
        raise ClipstepError("the sample cannot be a tensor", got=f"an array of {sample.dtype}", expected=f"an array of {given.dtype}") from error


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
