"""Turns registered buffers that a network changes in `forward` into states, such as the stream buffers of MoViNets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipstep.export.compat.torch_internals import names_of_buffers
from clipstep.export.outputs import RANKS, leaves_of
from clipstep.export.purity.errors import STATISTICS
from clipstep.export.source_lines import describe_error, line_of_error
from clipstep.network.preprocess import RGB
from clipstep.network.states import named_states
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed

STEPS = 3
"""How many steps are run: two to see which buffers change, and a third that reads what the second wrote."""
TOLERANCE = 1e-5
SHOWN = 3


@dataclass(frozen=True)
class _Buffer:
    """A buffer that becomes a state, and how it is converted: states are float32 and of rank 1 to 4."""

    path: str
    shape: tuple[int, ...]
    """The shape that the network gets it in: its own or, for a single number that need not be of rank 0 in the network, `(1,)`."""
    dtype: torch.dtype
    """The type that the network gets it in: its own or, for whole numbers that need not be whole in the network, float32."""
    initial: float

    @property
    def state(self) -> str:
        return self.path.replace(".", "_")

    @property
    def state_shape(self) -> tuple[int, ...]:
        if len(self.shape) < 1:
            return (1,)
        return self.shape if len(self.shape) in RANKS else (self.shape[0], -1, *self.shape[-2:])

    def initial_state(self) -> Tensor:
        return torch.full(self.shape, self.initial).reshape(self.state_shape)

    def to_state(self, value: Tensor) -> Tensor:
        return value.float().reshape(self.state_shape)

    def from_state(self, state: Tensor) -> Tensor:
        """Return a copy, which the network may write into."""
        return state.clone().reshape(self.shape).to(self.dtype)


class BuffersAsStates(nn.Module):
    """A network whose changing buffers are states: `forward(frames, *states)` returns the network's outputs and the buffers' next values."""

    def __init__(self, network: nn.Module, buffers: Sequence[_Buffer]) -> None:
        super().__init__()
        self.network, self.buffers_of_states, self.training = network, tuple(buffers), network.training

    def initial_states(self) -> dict[str, Tensor]:
        return {**named_states(self.network), **{buffer.state: buffer.initial_state() for buffer in self.buffers_of_states}}

    def forward(self, frames: Tensor, *states: Tensor) -> Any:
        own = states[: len(states) - len(self.buffers_of_states)]
        given = {buffer.path: buffer.from_state(state) for buffer, state in zip(self.buffers_of_states, states[len(own) :], strict=True)}
        result = functional_call(self.network, given, (frames, *own), tie_weights=False)  # It puts new values into `given`.
        return _extended(result, {buffer.state: buffer.to_state(given[buffer.path]) for buffer in self.buffers_of_states}, states=bool(own))

    def __repr__(self) -> str:
        return f"BuffersAsStates({type(self.network).__name__}; {', '.join(buffer.path for buffer in self.buffers_of_states)})"


def _extended(result: Any, following: Mapping[str, Tensor], *, states: bool) -> Any:
    """Return what a network returned with the next states behind it."""
    if isinstance(result, Tensor):
        return result, *following.values()
    if isinstance(result, tuple) and not hasattr(result, "__match_args__") and (states or len(result) == 1):
        return *result, *following.values()
    return {**leaves_of(result), **{f"{name}_out": value for name, value in following.items()}}


@torch.no_grad()
def buffers_as_states(network: nn.Module, *, frames: int, size: int, channels: int = RGB) -> BuffersAsStates:
    """Return the network with those of its registered buffers that change in `forward` as states, which start with the values that they have now.

    Which these are is found by running the network for a few steps on noise; its own buffers are left as they are. Then the returned network is
    run on the same frames, and has to give the same outputs. Buffers of whole numbers or booleans, such as a counter, become float32 states; those
    of rank 5 and more are reshaped to rank 4.

    Args:
        network: the network, in eval mode, for clips `(1, channels, frames, size, size)`.
        frames: T, the frames of a clip.
        size: height and width of a frame.
        channels: 3, or 2 for optical flow.

    Raises:
        ClipstepError: the network fails, or no buffer changes; or one that changes starts as None or with different numbers, changes its shape, or is
            a running statistic of a normalisation in training mode.
    """
    clips = torch.randn(STEPS, 1, channels, frames, size, size, generator=torch.Generator().manual_seed(0))
    start = {path: buffer.detach().clone() for path, buffer in network.named_buffers()}
    empty = [(module, name) for module in network.modules() for name in names_of_buffers(module) if getattr(module, name) is None]
    try:
        expected, moments = _run(network, clips, start)
    finally:
        filled = {(name, module) for module, name in empty if getattr(module, name) is not None}
        for name, module in filled:
            setattr(module, name, None)
    _check_empty(network, filled)
    changing = [path for path, value in start.items() if any(not _same(value, moment.get(path)) for moment in moments)]
    for path in changing:
        _check(path, start[path], [moment.get(path) for moment in moments])
    if not changing:
        raise ClipstepError(
            "--adapter buffers: no buffer of the network changes in forward", got=f"{STEPS} steps on noise", fix="leave the adapter out"
        )
    for exact in (False, True):  # First with counters as float32 `(1,)`: engines run that faster, and some take nothing else.
        made = BuffersAsStates(network, [_buffer(path, start[path], exact=exact) for path in changing])
        if _equal(made, clips, expected):
            return made
    raise ClipstepError(
        "--adapter buffers: with its buffers as states the network gives other outputs",
        got=f"the states {listed(changing, SHOWN)}",
        fix="it remembers something else, too: write its states by hand (docs/your-own-network.md)",
    )


def _run(network: nn.Module, clips: Tensor, start: Mapping[str, Tensor]) -> tuple[list[Any], list[dict[str, Tensor]]]:
    """Run steps on copies of the buffers; return the network's outputs, and the buffers after each step."""
    buffers, states = {path: value.clone() for path, value in start.items()}, list(named_states(network).values())
    outputs, moments = [], []
    for clip in clips:
        try:
            result = functional_call(network, buffers, (clip.clone(), *(state.clone() for state in states)), tie_weights=False)
        except Exception as error:  # User code may raise anything.
            raise ClipstepError(
                "--adapter buffers: the network cannot run a step", got=describe_error(error), fix=f"it comes from {line_of_error(error)}"
            ) from error
        outputs.append(_tensors(result))
        if states:
            states = outputs[-1][-len(states) :]
        moments.append({path: value.detach().clone() for path, value in buffers.items() if isinstance(value, Tensor)})
    return outputs, moments


def _tensors(result: Any) -> list[Tensor]:
    return [value.detach().clone() for value in leaves_of(result).values() if isinstance(value, Tensor)]


def _equal(made: BuffersAsStates, clips: Tensor, expected: Sequence[Sequence[Tensor]]) -> bool:
    states = list(made.initial_states().values())
    count = len(made.buffers_of_states)
    own = len(states) - count
    for clip, wanted in zip(clips, expected, strict=True):
        try:
            got = _tensors(made(clip, *states))
        except Exception:  # The network needs whole numbers.
            return False
        if len(got) != len(wanted) + count or not all(map(_near, got, wanted)):
            return False
        states = [*(got[len(wanted) - own : len(wanted)] if own else []), *got[len(wanted) :]]
    return True


def _near(value: Tensor, wanted: Tensor) -> bool:
    return value.shape == wanted.shape and bool(((value - wanted).abs() <= TOLERANCE * wanted.abs().max().clamp(min=1e-6)).all())


def _same(old: Any, new: Any) -> bool:
    return isinstance(new, Tensor) and old.shape == new.shape and old.dtype == new.dtype and torch.equal(old, new)


def _buffer(path: str, value: Tensor, *, exact: bool) -> _Buffer:
    shape = tuple(value.shape) if exact else tuple(value.shape) or (1,)
    return _Buffer(path, shape, value.dtype if exact else torch.float32, float(value.flatten()[0]))


def _check_empty(network: nn.Module, filled: set[tuple[str, nn.Module]]) -> None:
    for path, module in network.named_modules():
        for name, owner in filled:
            if module is owner:
                raise ClipstepError(
                    f"--adapter buffers: {path}{'.' * bool(path)}{name} starts as None, which no state can",
                    expected="zeros of a fixed shape at the start of a video",
                    fix=f'register_buffer("{name}", torch.zeros(...)), or write it as a state',
                )


def _check(path: str, start: Tensor, moments: Sequence[Tensor | None]) -> None:
    """Refuse a changing buffer that cannot be a state."""
    if path.rpartition(".")[2] in STATISTICS:
        raise ClipstepError(f"--adapter buffers: {path} is a running statistic, which changes in training mode only", fix="let eval() reach it")
    for moment in moments:
        if moment is None or moment.shape != start.shape:
            raise ClipstepError(
                f"--adapter buffers: the shape of {path} changes from step to step",
                got=f"{tuple(start.shape)}, then {'None' if moment is None else tuple(moment.shape)}",
                expected="one shape",
                fix="keep a fixed number of frames in it",
            )
    if not start.numel() or bool((start != start.flatten()[0]).any()):
        raise ClipstepError(
            f"--adapter buffers: {path} starts with numbers that differ from element to element",
            got=f"{tuple(start.shape)} {start.dtype}",
            expected="one number for all, such as zeros at the start of a video",
            fix="reset the network's buffers, or build it anew: running it may have filled them",
        )
