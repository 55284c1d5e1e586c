"""Adapters: networks that take frames in another form than `(N, 3, T, H, W)`, or that remember in buffers, as networks that keep the step contract.

Each function takes a network and returns a module that holds it; it is neither copied nor changed. Adapters can be combined. On the command line
they are given by `--adapter NAME`, the innermost first.

Example:
    ```python
    from clipstep.export import adapters, export

    network = torch.hub.load("facebookresearch/pytorchvideo", "slowfast_r50", pretrained=True).eval()
    export(adapters.pathways(network, 4), "slowfast.clipstep", frames=32, size=256, ...)
    ```
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipstep.export.buffers import buffers_as_states
from clipstep.export.choices import ADAPTERS
from clipstep.runtime.errors import ClipstepError

__all__ = [
    "Adapted",
    "buffers_as_states",
    "dictionary",
    "frames_as_batch",
    "frames_as_channels",
    "grey",
    "pathways",
    "time_first",
]

LUMA = (0.299, 0.587, 0.114)
"""The shares of red, green and blue in grey: ITU-R BT.601, as in OpenCV and Pillow."""
USUAL_ALPHAS = (4, 8, 2)


class Adapted(nn.Module):
    """A network that gets what `convert` makes of a clip `(N, 3, T, H, W)`; its states, if it has any, are passed on."""

    def __init__(self, network: nn.Module, convert: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.convert, self.training = network, convert, network.training
        if hasattr(network, "initial_states"):
            self.initial_states = network.initial_states

    def forward(self, frames: Tensor, *states: Tensor) -> Any:
        return self.network(self.convert(frames), *states)


def pathways(network: nn.Module, *alphas: int, evenly: bool = False) -> Adapted:
    """Return a network that gives `network` a list of pathways, each with every alpha-th frame of the clip, as SlowFast takes them.

    Args:
        network: a network whose `forward` takes a list of `(N, 3, T / alpha, H, W)`.
        alphas: the temporal stride of each pathway; if there is only one, a second pathway has all frames: `pathways(network, 4)` is
            `pathways(network, 4, 1)`.
        evenly: take `T / alpha` frames from the first to the last instead, as PySlowFast and PyTorchVideo's examples do
            (`torch.linspace(0, T - 1, T // alpha).long()`).

    Raises:
        ClipstepError: an alpha is not a whole number of at least 1.
    """
    if not alphas or not all(isinstance(alpha, int) and alpha >= 1 for alpha in alphas):
        raise ClipstepError("pathways take the temporal stride of each", got=alphas or "none", expected="whole numbers of at least 1, such as 4")
    strides = (*alphas, 1) if len(alphas) == 1 else alphas
    return Adapted(network, partial(_pathways, strides=strides, evenly=evenly))


def _pathways(frames: Tensor, strides: Sequence[int], evenly: bool) -> list[Tensor]:
    return [_every(frames, stride, evenly) for stride in strides]


def _every(frames: Tensor, stride: int, evenly: bool) -> Tensor:
    count = frames.shape[2]
    if stride == 1:
        return frames
    if not evenly:
        return frames[:, :, ::stride]
    return torch.cat([frames[:, :, index : index + 1] for index in spread(count, max(1, count // stride))], 2)


def spread(count: int, number: int) -> list[int]:
    """Return `torch.linspace(0, count - 1, number).long()`, rounded as PyTorch rounds it, as numbers that torch.export takes for constants."""
    if number == 1:
        return [0]
    step, half = float(np.float32(count - 1) / np.float32(number - 1)), number // 2
    return [int(np.float32(step * index if index < half else count - 1 - step * (number - 1 - index))) for index in range(number)]


def time_first(network: nn.Module) -> Adapted:
    """Return a network that gives `network` clips `(N, T, 3, H, W)`, as Hugging Face's video models take them."""
    return Adapted(network, _time_first)


def _time_first(frames: Tensor) -> Tensor:
    return frames.transpose(1, 2)


def frames_as_channels(network: nn.Module) -> Adapted:
    """Return a network that gives `network` images of many channels `(N, T * 3, H, W)`: R, G and B of the first frame, then of the second, ..."""
    return Adapted(network, _frames_as_channels)


def _frames_as_channels(frames: Tensor) -> Tensor:
    return frames.transpose(1, 2).flatten(1, 2)


def frames_as_batch(network: nn.Module, *, mean: bool = False) -> Adapted:
    """Return a network that gives `network` the frames as images `(N * T, 3, H, W)`, as TSM and TSN take them.

    With `mean` the network returns logits of each frame `(N * T, classes)`, and those of the clip are their mean; without, it returns `(N, classes)`.
    """
    return Adapted(_MeanOfFrames(network) if mean else network, _with_count if mean else _frames_as_batch)


def _frames_as_batch(frames: Tensor) -> Tensor:
    return frames.transpose(1, 2).flatten(0, 1)


def _with_count(frames: Tensor) -> tuple[Tensor, int]:
    return _frames_as_batch(frames), frames.shape[2]


class _MeanOfFrames(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.training = network, network.training

    def forward(self, given: tuple[Tensor, int]) -> Tensor:
        images, count = given
        logits: Tensor = self.network(images)
        return logits.reshape(-1, count, logits.shape[-1]).mean(1)


def grey(network: nn.Module) -> Adapted:
    """Return a network that gives `network` clips of one channel `(N, 1, T, H, W)`: the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B.

    The frames are normalised first, so that the export needs the same `mean` for all three channels, and the same `std`.
    """
    return Adapted(network, _grey)


def _grey(frames: Tensor) -> Tensor:
    red, green, blue = (frames[:, channel : channel + 1] * share for channel, share in enumerate(LUMA))
    return red + green + blue


def dictionary(network: nn.Module, key: str) -> Adapted:
    """Return a network that gives `network` a dictionary with the clip under `key`."""
    return Adapted(network, partial(_dictionary, key=key))


def _dictionary(frames: Tensor, key: str) -> dict[str, Tensor]:
    return {key: frames}


def check_grey(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Check that frames that become grey are normalised by one mean and one standard deviation.

    Raises:
        ClipstepError: they differ from channel to channel.
    """
    is_grey = any(isinstance(part, Adapted) and part.convert is _grey for part in network.modules())
    if is_grey and (len(set(mean)) > 1 or len(set(std)) > 1):
        raise ClipstepError(
            "the adapter grey needs one mean and one std, because frames are normalised before they become grey",
            got=f"mean {tuple(mean)}, std {tuple(std)}",
            expected="the network's number for its one channel, three times",
        )


def adapted(network: nn.Module, names: Sequence[str], frames: int, size: int) -> nn.Module:
    """Return a network wrapped in the adapters of these names, the innermost first: `NAME` or `NAME:VALUE`, as `--adapter` takes them.

    Args:
        network: the network.
        names: the adapters, of `clipstep.export.choices.ADAPTERS`.
        frames: T, the frames of a clip.
        size: height and width of a frame.

    Raises:
        ClipstepError: an adapter is unknown or lacks its value, or cannot adapt the network.
    """
    for given in names:
        name, _, value = given.partition(":")
        if name not in ADAPTERS:
            raise ClipstepError("unknown adapter", got=given, expected=f"one of {', '.join(ADAPTERS)}")
        network = _MAKE[name](network, value, frames, size)
    return network


def _pathways_of(network: nn.Module, value: str, frames: int, size: int) -> nn.Module:
    alphas, _, how = value.partition(":")
    numbers = alphas.split(",")
    if how not in ("", "evenly") or not all(number.isdecimal() for number in numbers):
        raise ClipstepError(
            "--adapter pathways takes the temporal strides", got=f"pathways:{value}", expected="such as pathways:4 or pathways:4:evenly"
        )
    return pathways(network, *map(int, numbers), evenly=how == "evenly")


def _batch_of(network: nn.Module, value: str, frames: int, size: int) -> nn.Module:
    if value not in ("", "mean"):
        raise ClipstepError("--adapter frames-as-batch has one setting", got=f"frames-as-batch:{value}", expected="frames-as-batch:mean, or none")
    return frames_as_batch(network, mean=value == "mean")


def _dictionary_of(network: nn.Module, value: str, frames: int, size: int) -> nn.Module:
    if not value:
        raise ClipstepError("--adapter dictionary takes the key of the clip", got="dictionary", expected="such as dictionary:video")
    return dictionary(network, value)


def _without_value(name: str, make: Callable[[nn.Module, int, int], nn.Module]) -> Callable[[nn.Module, str, int, int], nn.Module]:
    def checked(network: nn.Module, value: str, frames: int, size: int) -> nn.Module:
        if value:
            raise ClipstepError(f"--adapter {name} has no setting", got=f"{name}:{value}", expected=name)
        return make(network, frames, size)

    return checked


_MAKE: Mapping[str, Callable[[nn.Module, str, int, int], nn.Module]] = {
    "pathways": _pathways_of,
    "time-first": _without_value("time-first", lambda network, frames, size: time_first(network)),
    "frames-as-channels": _without_value("frames-as-channels", lambda network, frames, size: frames_as_channels(network)),
    "frames-as-batch": _batch_of,
    "grey": _without_value("grey", lambda network, frames, size: grey(network)),
    "dictionary": _dictionary_of,
    "buffers": _without_value("buffers", lambda network, frames, size: buffers_as_states(network, frames=frames, size=size)),
}


@torch.no_grad()
def helpful_adapter(network: nn.Module, clip: Tensor, states: Sequence[Tensor]) -> str | None:
    """Return the adapter with which a network that failed on a clip `(1, 3, T, H, W)` runs, as `--adapter` takes it; None if none helps."""
    keys = _Keys(clip)
    with contextlib.suppress(Exception):
        network(keys, *states)
    tried: dict[str, Callable[[Tensor], Any]] = {
        "time-first": _time_first,
        **{f"pathways:{alpha}": partial(_pathways, strides=(alpha, 1), evenly=False) for alpha in USUAL_ALPHAS},
        **{f"dictionary:{key}": partial(_dictionary, key=key) for key in keys.asked[:1]},
        "frames-as-batch": _frames_as_batch,
        "frames-as-channels": _frames_as_channels,
        "grey": _grey,
    }
    for name, convert in tried.items():
        with contextlib.suppress(Exception):  # The network may raise anything on what it does not take.
            result = network(convert(clip), *(state.clone() for state in states))
            per_frame = name == "frames-as-batch" and isinstance(result, Tensor) and result.shape[:1] == clip.shape[2:3]
            return f"{name}:mean" if per_frame else name
    return None


class _Keys(dict[str, Tensor]):
    """A dictionary that has the clip under every key, and remembers which were asked for."""

    def __init__(self, clip: Tensor) -> None:
        super().__init__()
        self._clip, self.asked = clip, list[str]()

    def __missing__(self, key: Any) -> Tensor:
        self.asked.append(str(key))
        return self._clip
