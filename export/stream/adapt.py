"""Adapts a network to steps of another number of frames."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from clipstep.export.stream.network import StreamedNetwork
from clipstep.network.preprocess import normalise
from clipstep.network.spec import NetworkSpec
from clipstep.network.states import named_states, outputs_of
from clipstep.runtime.bundle.manifest import Flush
from clipstep.runtime.errors import ClipstepError


def streamed(spec: NetworkSpec, frames: int, window: int | None = None, kept: Sequence[str] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that takes `frames` frames a step, and its properties by their names in `clipstep.export.step.StepProgram`.

    Predictions are the mean over the newest `window` frames, or over all. A clip network returns a tuple of its logits and the outputs `kept`.

    Raises:
        ClipstepError: the network cannot become such steps, or has no mean over time that a window could bound.
    """
    if len(spec.sample.flatten(0, 1)) < frames:
        raise ClipstepError("the sample is shorter than a step", got=f"{frames} frames a step", expected="fewer")
    properties: dict[str, Any] = {"window": window, "temporal_average": "cumulative" if window is None else "sliding_window"}

    def normal(clip: Tensor) -> Tensor:
        return normalise(clip[None], spec.mean, spec.std, spec.input.layout)

    if named_states(spec.module):
        return _with_states(spec.module, frames, window, normal)
    network = StreamedNetwork(spec.module, normal(spec.sample[0]), frames, window and window // frames, kept)
    flush = Flush(state="ended", steps=network.flush_steps, min_frames=network.min_frames) if network.flush_steps else None
    if not network.averages:
        properties["temporal_average"] = None

    def on_all_frames(clip: Tensor, ended: bool) -> tuple[Tensor, ...] | None:
        result = network.clip(normal(clip), ended)
        return None if result is None else outputs_of(result)

    return network, properties | {"clip": on_all_frames, "delay": network.delay, "flush": flush}


def window_frames(seconds: float, fps: float, frames: int) -> int:
    """Convert a window in seconds to frames, the nearest number of whole steps.

    Raises:
        ClipstepError: it is shorter than a step.
    """
    steps = round(seconds * fps / frames)
    if steps < 1:
        raise ClipstepError(
            "the window is shorter than a step",
            got=f"{seconds:g} s",
            expected=f"at least {frames / fps:g} s, {frames} frames at {fps:g} a second",
            fix="give a longer --window, or a smaller --stream",
        )
    return steps * frames


def _with_states(network: nn.Module, frames: int, window: int | None, normal: Callable[[Tensor], Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    """Return the steps and properties of a network that has states of its own, as `streamed` does.

    Such a network takes fewer frames a step without a change. For a window, its method `windowed` has to return the network with that window.
    """
    make: Callable[[int, int], Any] | None = getattr(network, "windowed", None)
    states = tuple(named_states(network).values())
    if window is None:
        temporal_average = None if make is None else "cumulative"
        return network, {"clip": lambda clip, ended: outputs_of(network(normal(clip), *states))[:1], "temporal_average": temporal_average}
    if make is None:
        raise ClipstepError(
            "the network has states of its own, among which a window would have to be",
            got=", ".join(named_states(network)),
            expected="a clip network, or --preset causal",
            fix="export it without --window, or keep the newest steps in a state of the network",
        )
    windowed = make(frames, window)
    return windowed, {"clip": lambda clip, ended: (windowed.clip(normal(clip)),), "temporal_average": "sliding_window", "window": window}
