"""What a network takes as its frames: a video, images of other channels, or the joints of skeletons.

Whatever a frame is, T of them are one subclip, and the channels are the last axis in an artifact and the first one after the batch in the network:

| input | a subclip | what the network gets |
|---|---|---|
| `Video` | `(T, size, size, 3)`, or 2 channels of optical flow | `(N, C, T, size, size)` |
| `Images` | `(T, size, size, C)` | `(N, C, T, size, size)` |
| `Joints` | `(T, V, C)`, of several persons `(T, M, V, C)` | `(N, C, T, V)`, of several persons `(N, C, T, V, M)` |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clipstep.network.preprocess import FLOW, RGB
from clipstep.runtime.bundle.manifest import CHANNEL_LENGTH
from clipstep.runtime.bundle.manifest import Input as ManifestInput
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed

DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


@dataclass(frozen=True)
class Video:
    """RGB frames as cameras and decoders give them, or the optical flow between them, which has two channels; uint8."""

    kind: ClassVar[Literal["video"]] = "video"
    layout: ClassVar[Literal["THWC"]] = "THWC"
    dtype: ClassVar[Literal["uint8"]] = "uint8"
    channels: ClassVar[tuple[str, ...]] = ()

    def shape(self, frames: int, size: int, channels: int) -> tuple[int, ...]:
        """Return the shape of a subclip of `channels` channels."""
        return (frames, size, size, channels)

    def count_error(self, count: int) -> str | None:
        """Return how many channels there must be, if `count` are not possible."""
        return None if count in (RGB, FLOW) else f"{RGB} numbers for RGB, of 0..255; other channels are named by --channels, or by input=Images(...)"


VIDEO = Video()


@dataclass(frozen=True)
class Images:
    """Images of other channels than RGB: depth, RGB with depth, optical flow in pixels, several stacked flows.

    Example:
        ```python
        export(network, "rgbd.clipstep", input=Images(("R", "G", "B", "depth")), mean=(114, 114, 114, 90), std=(58, 58, 58, 40), ...)
        ```

    Raises:
        ClipstepError: there are no channels, a name is no text or is given twice, or the type is unknown.
    """

    channels: tuple[str, ...]
    """Their names, in their order."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """The type of the frames. Those of float32 may have any scale."""
    kind: ClassVar[Literal["images"]] = "images"
    layout: ClassVar[Literal["THWC"]] = "THWC"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", _names(self.channels))
        if self.dtype not in DTYPES:
            raise ClipstepError("images have another type than frames can have", got=self.dtype, expected=" or ".join(DTYPES))

    def shape(self, frames: int, size: int, channels: int) -> tuple[int, ...]:
        """Return the shape of a subclip."""
        return (frames, size, size, len(self.channels))

    def count_error(self, count: int) -> str | None:
        """Return how many channels there must be, if `count` is another number."""
        return _count_error(self.channels, count)


@dataclass(frozen=True)
class Joints:
    """The joints of skeletons, float32: for each joint of a frame its coordinates, and perhaps how certain they are.

    Example:
        ```python
        export(network, "gcn.clipstep", frames=64, input=Joints(25, ("x", "y", "z"), persons=2), mean=(0, 0, 0), std=(1, 1, 1), ...)
        ```

    Raises:
        ClipstepError: a number is not a whole number of at least 1; a name is no text or is given twice.
    """

    joints: int
    """V, the joints of a skeleton."""
    channels: tuple[str, ...] = ("x", "y", "score")
    """The names of the numbers that a joint has, in their order."""
    persons: int | None = None
    """M, for a network that takes the skeletons of several persons, `(N, C, T, V, M)`; None for one that takes `(N, C, T, V)`."""
    kind: ClassVar[Literal["joints"]] = "joints"
    dtype: ClassVar[Literal["float32"]] = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", _names(self.channels))
        for name, value in (("joints", self.joints), ("persons", 1 if self.persons is None else self.persons)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ClipstepError(f"{name} must be a whole number", got=repr(value), expected="an int of at least 1")

    @property
    def layout(self) -> Literal["TVC", "TMVC"]:
        """The axes of a subclip: time, persons, joints, channels."""
        return "TVC" if self.persons is None else "TMVC"

    def shape(self, frames: int, size: int, channels: int) -> tuple[int, ...]:
        """Return the shape of a subclip."""
        return (frames, *(() if self.persons is None else (self.persons,)), self.joints, len(self.channels))

    def count_error(self, count: int) -> str | None:
        """Return how many channels there must be, if `count` is another number."""
        return _count_error(self.channels, count)


NetworkInput = Video | Images | Joints


def input_of_manifest(given: ManifestInput) -> NetworkInput:
    """Return what the network behind a bundle takes, by the input in the bundle's manifest."""
    if given.kind == "images":
        return Images(given.channels, given.dtype)
    if given.kind == "joints":
        return Joints(given.shape[-2], given.channels, given.shape[1] if given.layout == "TMVC" else None)
    return VIDEO


def noise_like(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return noise of the same shape and type as frames, the same for the same shape; of float32 on the scale of `mean` and `std`."""
    generator = torch.Generator().manual_seed(1)
    if frames.dtype == torch.uint8:
        return torch.randint(256, frames.shape, dtype=torch.uint8, generator=generator)
    return torch.randn(frames.shape, generator=generator) * torch.tensor(std) + torch.tensor(mean)


def negative(frames: Tensor, mean: Sequence[float]) -> Tensor:
    """Return the negative of frames: bright becomes dark, or what is above the mean is below it."""
    return 255 - frames if frames.dtype == torch.uint8 else 2 * torch.tensor(mean) - frames


def _names(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ClipstepError("channels are a list of names", got=repr(given)[:80], expected="such as ('depth',)")
    odd = [name for name in given if not isinstance(name, str) or not name.strip() or len(name) > CHANNEL_LENGTH]
    if odd or len(set(given)) < len(given):
        got = repr(odd[0])[:80] if odd else listed(list(given))
        raise ClipstepError("channels need a name each", got=got, expected=f"texts of 1 to {CHANNEL_LENGTH} characters that differ from each other")
    return tuple(given)


def _count_error(channels: Sequence[str], count: int) -> str | None:
    return None if count == len(channels) else f"a number for each of {listed(list(channels))}"
