"""What exports use of Core ML Tools that is not public: how a program is built, and how a written package is read."""

from typing import Any

from clipstep.runtime.supported import SupportedRange

COREMLTOOLS = SupportedRange("coremltools", "9.0", "9.1", version_in="coremltools")

with COREMLTOOLS.internals():
    from coremltools import proto
    from coremltools.converters.mil.mil import Function, Program, types
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
    from coremltools.libmilstoragepython import _BlobStorageReader as BlobStorageReader

    MIL: Any = COREMLTOOLS.guarded(proto.MIL_pb2)
    """The messages of an ML Program."""
    ARRAY_TYPES: Any = proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
    """The types of a model's inputs and outputs."""

__all__ = ["ARRAY_TYPES", "COREMLTOOLS", "MIL", "BlobStorageReader", "FP16ComputePrecision", "Function", "Program", "types"]
