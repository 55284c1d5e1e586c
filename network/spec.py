"""The network spec: a network with all that an export must know of it. Trained runs, factories and modules in memory
are all turned into a network spec before they are exported."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from clipstep.network.inputs import DTYPES, VIDEO, NetworkInput
from clipstep.runtime.bundle.manifest import FrameSource, Provenance
from clipstep.runtime.bundle.strict_json import is_printable_line, quoted
from clipstep.runtime.checks.limits import TENSOR_BYTES, check_labels, check_shapes
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.resampler import check_rate
from clipstep.runtime.wording import listed

AXES = {"T": "frames", "H": "height", "W": "width", "C": "channels", "M": "persons", "V": "joints"}


@dataclass(frozen=True)
class NetworkSpec:
    """A network with all that an export must know of it.

    `clipstep.export.network_of_module`, `network_of_factory` and `network_of_run` make one, and
    `clipstep.export.export_network` writes it as a bundle.

    Raises:
        ClipstepError: A value is impossible, or the values contradict each other.
    """

    module: nn.Module
    """The network, which keeps the step contract of `clipstep.network`; in eval mode."""
    frames: int
    """T, the frames of a subclip."""
    size: int
    """Height and width of the frames, in pixels; the number of joints of a skeleton."""
    labels: tuple[str, ...]
    """The class names, in the order of the logits."""
    mean: tuple[float, ...]
    """What is subtracted from each channel, on the scale of the frames: 0..255 for a video."""
    std: tuple[float, ...]
    """What each channel is then divided by, on the same scale."""
    fps: float
    """Frames per second of the videos that the network was trained on."""
    sample: Tensor
    """Subclips ``(S, T, size, size, channels)`` uint8 on which the golden steps are recorded; of another input they have its shape and type."""
    provenance: Provenance
    """Where the network comes from, as the bundle's manifest will say it."""
    sample_source: FrameSource = "run_sample"
    """What the sample's frames are: from the run, given by the caller, of a video, or synthetic scenes."""
    adapters: tuple[str, ...] = ()
    """The adapters that the network was wrapped in by name, in their order, as the manifest will say it; see `clipstep.export.adapters`."""
    input: NetworkInput = VIDEO
    """What a frame is."""

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise ClipstepError("the network is no module", got=type(self.module).__name__, expected="a torch.nn.Module")
        _check_labels(self.labels)
        check_normalisation(self.mean, self.std, self.input)
        check_frames(self.frames, self.size, len(self.mean), self.input)
        check_rate(self.fps)
        _check_sample(self.sample, self.shape, DTYPES[self.input.dtype], self.input.layout)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a subclip."""
        return self.input.shape(self.frames, self.size, len(self.mean))

    def __repr__(self) -> str:
        what = f"{self.frames} frames of {'x'.join(map(str, self.shape[1:-1]))} a subclip, {len(self.labels)} classes"
        return f"<NetworkSpec of {self.provenance.source}: {what}>"


def weights_sha256(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a state dict: of the name, type, shape and bytes of each tensor, in order of name (docs/versions.md).

    It does not depend on the file format that the weights were stored in.
    """
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        # Skipped are results of get_extra_state() that are not tensors, and tensors without plain data (lazy, on the meta device, sparse):
        # the check of the step contract refuses the latter, and names them.
        if isinstance(value, Tensor) and not is_lazy(value) and not value.is_meta and not value.is_nested and value.layout == torch.strided:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_frames(frames: int, size: int, channels: int, given: NetworkInput = VIDEO) -> None:
    """Check the frames of a subclip, before anything of their size is made.

    Raises:
        ClipstepError: a number is not a whole number of at least 1, or such frames exceed the memory limit of a step.
    """
    for name, value in (("frames", frames), ("size", size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ClipstepError(f"{name} must be a whole number", got=repr(value), expected="an int of at least 1")
    try:
        check_shapes(shape := given.shape(frames, size, channels), ())
    except ValueError as error:
        got = f"{frames} of {'x'.join(map(str, shape[1:-1]))}"
        raise ClipstepError("the frames of a subclip are too large", got=got, expected=f"at most {TENSOR_BYTES} bytes as float32") from error


def _check_labels(labels: Sequence[str]) -> None:
    if isinstance(labels, str) or not labels or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ClipstepError("labels must be a list of class names", got=repr(labels)[:80], expected="a list of at least one text, none of them empty")
    odd = next((label for label in labels if not is_printable_line(label)), None)
    if odd is not None:
        raise ClipstepError("a label holds control characters", got=quoted(odd), expected="text of one line")
    try:
        check_labels(labels)
    except ValueError as error:
        raise ClipstepError("labels cannot be in a bundle", got=str(error), expected="the class names") from error
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ClipstepError("labels name a class twice", got=listed(twice), expected="each class once")


def check_normalisation(mean: Sequence[float], std: Sequence[float], given: NetworkInput) -> None:
    """Check that mean and std have a finite number for each channel, and that those of std are above 0.

    Raises:
        ClipstepError: they have not.
    """
    for name, values in (("mean", mean), ("std", std)):
        expected = given.count_error(len(values)) or given.count_error(len(mean))
        if expected is not None or len(values) != len(mean):
            raise ClipstepError(f"{name} has a number for each channel", got=tuple(values), expected=expected or f"{len(mean)} numbers, as mean has")
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise ClipstepError(f"{name} holds finite numbers", got=tuple(values), expected="numbers on the scale of the frames")
    if min(std) <= 0:
        raise ClipstepError("std must be above 0, because frames are divided by it", got=tuple(std), expected="numbers above 0")


def _check_sample(sample: Tensor, shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> None:
    wanted = f"(S, {', '.join(map(str, shape))}) {dtype} with at least one subclip: S, {', '.join(AXES[axis] for axis in layout)}"
    if not isinstance(sample, Tensor):
        raise ClipstepError("the sample is no tensor", got=type(sample).__name__, expected=wanted)
    if sample.ndim != len(shape) + 1 or tuple(sample.shape[1:]) != shape or not len(sample) or sample.dtype != dtype:
        raise ClipstepError("the sample's frames are not the network's", got=f"{tuple(sample.shape)} {sample.dtype}", expected=wanted)
    if sample.device.type != "cpu":
        raise ClipstepError("the sample is on another device", got=sample.device, expected="cpu", fix="call .cpu()")
    if not bool(sample.isfinite().all()):
        raise ClipstepError("the sample holds numbers that are not finite", expected="what stood for missing values in training, such as 0")
