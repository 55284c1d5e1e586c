"""Finds the function that measures the variants of an artifact, for `clipstep export --tune`."""

import importlib

from clipstep.export.options import Tune
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install_hints import install_extra


def tune_by_measuring() -> Tune:
    """Return the function of `clipstep.benchmarks` that measures variants.

    That package imports `clipstep.export`, so it is imported only when this function is called.

    Raises:
        ClipstepError: a library that it needs is not installed.
    """
    try:
        measure: Tune = importlib.import_module("clipstep.benchmarks.tune").tune
    except ModuleNotFoundError as error:
        raise ClipstepError(f"tuning needs {error.name}, which is not installed", fix=install_extra("bench")) from error
    return measure
