"""The precisions of artifacts: what they compute in and, of a Core ML package of int8 or of a palette, how it holds its weights.

Of dynamic8, convolutions are of integers of 8 bits, whose ranges are found in each step, and the rest is in float16. Of a Core ML package of w8a8,
the operands of convolutions and matrix products are integers of 8 bits, weights and values, and the rest is in float16.
"""

from typing import Literal, get_args

Precision = Literal["float32", "float16", "dynamic8", "int8", "w8a8", "palette8", "palette6", "palette4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FLOATS = ("float32", "float16")
"""Those whose bound is so narrow that accuracy need not be evaluated."""
FLOAT16_ARITHMETIC = ("float16", "dynamic8")
"""Those in which an engine on a processor computes in float16; Core ML's chooses where it does."""
