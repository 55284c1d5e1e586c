"""Computes the operations of ML Programs with torch, as coremltools' reference of MIL operations (iOS 15 to 18) defines them.

Each function takes an operation's inputs by name, and refuses settings that it does not know. float16 values are held in float32: an operation
is computed in float32 and its result is rounded to float16 by the evaluator, because accumulators on devices are at least as wide.
"""

from collections.abc import Callable
from typing import Any

from clipstep.export.mil.elementwise import ELEMENTWISE
from clipstep.export.mil.images import IMAGES
from clipstep.export.mil.indexing import INDEXING
from clipstep.export.mil.layers import LAYERS
from clipstep.export.mil.movement import MOVEMENT
from clipstep.export.mil.reductions import REDUCTIONS

OPERATIONS: dict[str, Callable[..., Any]] = {**ELEMENTWISE, **IMAGES, **INDEXING, **LAYERS, **MOVEMENT, **REDUCTIONS}
EXACT = frozenset(
    {*MOVEMENT, "abs", "cast", "ceil", "floor", "gather", "gather_along_axis", "gather_nd", "identity", "max_pool", "maximum", "minimum"}
    | {"reduce_max", "reduce_min", "relu", "relu6", "resize_nearest_neighbor", "round", "select", "sign", "topk", "upsample_nearest_neighbor"}
)
"""Operations whose results are numbers of their inputs, or of their type already, so that nothing is rounded."""
ROUNDING = frozenset({"quantize", "dequantize"})
"""Operations that only round values, to integers of a scale and back."""
