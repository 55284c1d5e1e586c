"""What exports use of Core ML Tools that is not public to build a program. What reads a package is in `clipstep.runtime.coremltools_files`."""

from clipstep.runtime.coremltools_files import COREMLTOOLS

with COREMLTOOLS.internals():
    from coremltools.converters.mil.mil import Function, Program, types
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

__all__ = ["COREMLTOOLS", "FP16ComputePrecision", "Function", "Program", "types"]
