"""What measures the variants of an artifact, for ``clipstep export --tune``."""

import importlib

from clipstep.export.options import Tune
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install import install_extra


def tune_by_measuring() -> Tune:
    """The function that measures; it imports this package, so that it is imported when it is asked for.

    Raises:
        ClipstepError: what it needs is not installed.
    """
    try:
        measure: Tune = importlib.import_module("clipstep.benchmarks.tune").tune
    except ModuleNotFoundError as error:
        raise ClipstepError(f"tuning needs {error.name}, which is not installed", fix=install_extra("bench")) from error
    return measure
