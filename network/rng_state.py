"""Preserve the state of the process' random number generators."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""Environment variables by which Lightning passes its seed to the processes that it starts."""


@contextmanager
def preserved_rng_state() -> Iterator[None]:
    """Restore the global generators of torch, NumPy and Python, and Lightning's variables, to their state before the block."""
    variables = {name: os.environ.get(name) for name in VARIABLES}
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
