"""The precisions of artifacts: what they compute in and, of a Core ML package of int8 or of a palette, how it holds its weights."""

from typing import Literal, get_args

Precision = Literal["float32", "float16", "int8", "palette8", "palette6", "palette4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
