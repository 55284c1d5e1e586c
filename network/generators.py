"""The process' random generators, left as they were found."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""Where Lightning notes its seed for the processes that it starts."""


@contextmanager
def restored_generators() -> Iterator[None]:
    """Gives torch's, numpy's and Python's global generators, and Lightning's variables, the state back that they had before."""
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
