"""A toolchain from PyTorch video networks to verified artifacts: `network`, `training`, `export`, `runtime`, `benchmarks`."""

from typing import Any

__all__ = ["__version__"]

__version__: str
"""The version that is installed, such as `"0.1.0"`."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("clipstep")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
