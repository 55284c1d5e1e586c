"""A toolchain from PyTorch video networks to verified artifacts: ``training``, ``export``, ``runtime``, ``benchmarks``."""

from typing import Any

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("clipstep")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
