"""A network's states, and what it returns, whether it has states or not."""

from typing import Any

from torch import Tensor, nn


def named_states(network: nn.Module) -> dict[str, Tensor]:
    """The network's states before a video's first subclip by name, batch 1; none if it is a plain clip network."""
    states: Any = getattr(network, "initial_states", dict)
    named: dict[str, Tensor] = states()
    return named


def initial_states(network: nn.Module) -> list[Tensor]:
    """The same without their names, in the order in which the network takes them."""
    return list(named_states(network).values())


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """``(logits, *next_states)`` of a network's result: a clip network may return its logits alone."""
    return result if isinstance(result, tuple) else (result,)
