"""Reads a network's initial states and outputs in the same way whether or not the network has states."""

from typing import Any

from torch import Tensor, nn


def named_states(network: nn.Module) -> dict[str, Tensor]:
    """Return the states before a video's first subclip by name, batch 1; a plain clip network has none."""
    states: Any = getattr(network, "initial_states", dict)
    named: dict[str, Tensor] = states()
    return named


def initial_states(network: nn.Module) -> list[Tensor]:
    """Return the states before a video's first subclip as a list, in the order in which ``forward`` takes them."""
    return list(named_states(network).values())


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """Return ``(logits, *next_states)`` from what ``forward`` returned: a clip network may return its logits alone."""
    return result if isinstance(result, tuple) else (result,)
