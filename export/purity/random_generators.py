"""Random sources: those that everybody shares, and those that a network keeps for itself."""

import contextlib
import copy
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clipstep.network.generators import restored_generators

SHARED: tuple[Any, ...] = (random.getstate.__self__, np.random.get_state.__self__, torch.default_generator)  # type: ignore[attr-defined]
"""The sources that everybody shares; a function of theirs that a file imports by name leads to them."""


@dataclass(frozen=True)
class RandomSource:
    """A network's own random source, by how its state is read and put back."""

    read: Callable[[], Any]
    write: Callable[[Any], object]

    @classmethod
    def of(cls, thing: Any) -> "RandomSource | None":
        """None for what is no random source, or a shared one."""
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
    """The states of the sources that everybody shares, by the name of what draws from them."""
    return {"torch": torch.get_rng_state(), "numpy.random": pickle.dumps(np.random.get_state()), "random": random.getstate()}


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the shared sources inside, and puts them back as they were."""
    with restored_generators():
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
