"""How each operation on values of rank 5 and more is done on tensors of rank 4: small pure functions, by operation.

A rule is called as the original operation was, with :class:`Frames` or a :class:`View` wherever that had a tensor of
rank 5 or more. What computes on a picture works on frames; what moves axes works on views.
"""

import operator
from collections.abc import Callable
from typing import Any

from clipstep.export.lowering.rules import convolution, layers, movement, pointwise, pooling, reductions

RULES: dict[Any, Callable[..., Any]] = {
    **convolution.RULES,
    **pooling.RULES,
    **pointwise.RULES,
    **movement.RULES,
    **reductions.RULES,
    **layers.RULES,
    operator.getitem: operator.getitem,
}
