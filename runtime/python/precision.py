"""The precisions that an artifact can compute in."""

from typing import Literal, get_args

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
