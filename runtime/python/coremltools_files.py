"""What reads Core ML packages: the parts of Core ML Tools that are not public and that the runtime uses. No other module of the runtime uses any.

What writes packages is in `clipstep.export.compat`, which only exports import.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from clipstep.runtime.supported import SupportedRange

__all__ = ["ARRAY_TYPES", "COREMLTOOLS", "MIL", "BlobStorageReader", "load_spec"]

PACKAGE = "coremltools"
MANIFEST = "Manifest.json"
"""The file of a package that names the others."""
COREMLTOOLS = SupportedRange(PACKAGE, "9.0", "9.1", version_in=PACKAGE)


@contextmanager
def _without_converters() -> Iterator[None]:
    """Return a context in which modules of Core ML Tools are imported without the package itself, unless that is imported already.

    The package imports its converters and, for them, ExecuTorch and scikit-learn as well, which takes ten times as long as PyTorch.
    """
    found = None if PACKAGE in sys.modules else importlib.util.find_spec(PACKAGE)
    if found is None:
        yield
        return
    stand_in = sys.modules[PACKAGE] = ModuleType(PACKAGE)
    stand_in.__path__ = list(found.submodule_search_locations or ())
    try:
        yield
    finally:
        if sys.modules.get(PACKAGE) is stand_in:
            del sys.modules[PACKAGE]


with _without_converters(), COREMLTOOLS.internals():
    from coremltools.libmilstoragepython import _BlobStorageReader as BlobStorageReader
    from coremltools.libmodelpackage import ModelPackage
    from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2

    MIL: Any = COREMLTOOLS.guarded(MIL_pb2)
    """The messages of an ML Program."""
    ARRAY_TYPES: Any = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
    """The types of a model's inputs and outputs."""


def load_spec(path: Path) -> Any:
    """Return the specification in a package, a message of protobuf, as `coremltools.utils.load_spec` does.

    Raises:
        FileNotFoundError: the folder is missing or no package. Core ML Tools would make an empty package of it.
        Exception: the package is damaged; protobuf and Core ML Tools raise many types.
    """
    if not (path / MANIFEST).is_file():
        raise FileNotFoundError(f"no {MANIFEST}")
    spec: Any = Model_pb2.Model()
    spec.ParseFromString(Path(ModelPackage(str(path)).getRootModel().path()).read_bytes())
    return spec
