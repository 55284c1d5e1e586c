"""A network and what is to be known of it: states, normalisation, sample frames, weights. Training, export and benchmarks share it.

It needs the runtime's libraries and PyTorch, and nothing else: who exports a network does not have to install what trains one.
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from clipstep.network.preprocess import normalise
    from clipstep.network.spec import NetworkSpec
    from clipstep.network.videos import read_subclips

__all__ = ["NetworkSpec", "normalise", "read_subclips"]

__getattr__ = lazy_names(__name__, {"preprocess": ("normalise",), "spec": ("NetworkSpec",), "videos": ("read_subclips",)})
