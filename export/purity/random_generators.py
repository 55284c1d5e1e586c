"""Random number generators: the shared ones of torch, numpy and Python, and those that a network has for itself."""

import contextlib
import copy
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clipstep.network.rng_state import preserved_rng_state

SHARED: tuple[Any, ...] = (random.getstate.__self__, np.random.get_state.__self__, torch.default_generator)  # type: ignore[attr-defined]
"""The shared generators. A bound function such as `random.random` leads to one of them."""


@dataclass(frozen=True)
class RandomGenerator:
    """A network's own random number generator: the functions that read and set its state."""

    read: Callable[[], Any]
    write: Callable[[Any], object]

    @classmethod
    def of(cls, thing: Any) -> "RandomGenerator | None":
        """Return `thing` as a generator; None if it is no random number generator, or a shared one."""
        if any(thing is shared for shared in SHARED):
            return None
        if isinstance(thing, torch.Generator):
            return cls(thing.get_state, thing.set_state)
        if isinstance(thing, np.random.Generator):
            return cls(lambda: copy.deepcopy(thing.bit_generator.state), lambda state: setattr(thing.bit_generator, "state", state))
        if isinstance(thing, np.random.RandomState):
            return cls(thing.get_state, thing.set_state)
        return cls(thing.getstate, thing.setstate) if isinstance(thing, random.Random) else None

    @property
    def state(self) -> bytes:
        return pickle.dumps(self.read())


def shared_states() -> dict[str, Any]:
    """Return the states of the shared generators, by the name of the module that draws from them."""
    return {"torch": torch.get_rng_state(), "numpy.random": pickle.dumps(np.random.get_state()), "random": random.getstate()}


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the shared generators inside of the context, and restore them after it."""
    with preserved_rng_state():
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
