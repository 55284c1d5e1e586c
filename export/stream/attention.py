"""The rule for attention: within each frame, or over the newest frames, whose keys and values are remembered."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clipstep.export.stream.framewise import DIFFERS
from clipstep.export.stream.interpreter import Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
MASKED = -1e4
"""A number that is added to a score and is at most this leaves a weight of zero, in float32 and float16."""
NOT_YET = -60000.0
"""What is added to the scores of frames before the video: finite in float16 too."""
ROWS = -2
"""The axis of queries, keys and values on which the frames are in attention over time."""


def attention(
    stream: StreamInterpreter,
    node: fx.Node,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    causal: bool = False,
    **kwargs: Any,
) -> Chunk:
    """Scaled dot-product attention.

    Over time it has to be limited to the newest w frames, by a mask that is the same for each frame, or by the stream's window. Then the
    keys and values of the w - 1 frames before the step's are remembered:

        steps of 2 frames, w = 3     query i   sees keys   0 1 |2 3    of which 0 and 1 are remembered
                                           2   1 1 1 0     from its own frame back to the second before it
                                           3   0 1 1 1
    """
    parts = [query, key, value]
    if not all(isinstance(x, Chunk) for x in parts) or isinstance(mask, Chunk):
        raise Unsupported("joins queries, keys and values of which not all are of single frames, or has a mask that is computed from the frames")
    q, k, v = stream.align(parts)
    places = {x.axis - x.data.ndim for x in (q, k, v)}
    if len(places) > 1 or max(places) > ROWS:
        raise Unsupported("joins values whose frames lie on different axes")
    (place,) = places
    if place < ROWS:
        if isinstance(mask, Tensor) and mask.ndim >= -place and mask.shape[place] > 1:
            raise Unsupported(DIFFERS)
        return replace(q, data=F.scaled_dot_product_attention(q.data, k.data, v.data, mask, dropout, causal, **kwargs))
    stream.fixed_length = True
    offsets = _offsets(stream, node, mask, causal, q)
    count = len(offsets[0])
    added = torch.tensor(_band(offsets, q.frames)).reshape(*(mask.shape[:ROWS] if isinstance(mask, Tensor) else ()), q.frames, q.frames + count - 1)
    if count > 1:
        k, v = stream.extend(k, count - 1), stream.extend(v, count - 1)
        known = stream.inside(replace(k, delay=k.delay + count - 1), count - 1, before=True, after=False)
        assert known is not None
        added = added + (1 - known) * NOT_YET
    return replace(q, data=F.scaled_dot_product_attention(q.data, k.data, v.data, added, dropout, **kwargs))


def _offsets(stream: StreamInterpreter, node: fx.Node, mask: Tensor | None, causal: bool, x: Chunk) -> list[list[float]]:
    """Return for each matrix of a mask what it adds to the score of a query's own frame, of the frame before it, and so on to the oldest one allowed.

    Raises:
        Unsupported: a query sees later frames, all earlier ones, or other ones than the query of another frame.
    """
    if node.name not in stream.plans:
        stream.plans[node.name] = _read(stream, node, mask, causal, x)
    offsets: list[list[float]] = stream.plans[node.name]
    return offsets


def _read(stream: StreamInterpreter, node: fx.Node, mask: Tensor | None, causal: bool, x: Chunk) -> list[list[float]]:
    length = int(node.meta["val"].shape[ROWS])
    added = torch.zeros(length, length)
    if causal:
        added = added.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    elif mask is not None:
        added = added.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else mask
    added = added.expand(*added.shape[:ROWS], length, length).reshape(-1, length, length)
    if any(bool((added.diagonal(offset, 1, 2) > MASKED).any()) for offset in range(1, length)):
        raise Unsupported("attends to later frames, which a stream does not have yet: use a causal mask")
    diagonals = [added.diagonal(-offset, 1, 2) for offset in range(length)]
    if any(bool((diagonal.clamp(min=MASKED) != diagonal.clamp(min=MASKED)[:, :1]).any()) for diagonal in diagonals):
        raise Unsupported("has a mask that differs from frame to frame")
    seen = 1 + max((offset for offset in range(length) if bool((diagonals[offset] > MASKED).any())), default=0)
    if seen == length and stream.window_steps is not None:
        seen = stream.window_steps * x.frames
        stream.windows[node] = seen
        diagonals = [diagonals[min(offset, length - 1)] for offset in range(seen)]
    elif seen == length:
        raise Unsupported(
            "attends to all frames so far, whose number has no bound: limit it by a mask to the newest frames, "
            "torch.ones(T, T).tril().triu(1 - w).bool() for w of them, or export with --window"
        )
    return [[float(diagonal[matrix, 0]) for diagonal in diagonals[:seen]] for matrix in range(len(added))]


def _band(offsets: list[list[float]], frames: int) -> list[list[list[float]]]:
    """Return what is added to the scores of a step's queries and the keys that they may see, `(matrices, frames, frames + w - 1)`."""
    before = len(offsets[0]) - 1

    def added(one: list[float], row: int, column: int) -> float:
        offset = row + before - column
        return one[offset] if 0 <= offset <= before else -math.inf

    return [[[added(one, row, column) for column in range(frames + before)] for row in range(frames)] for one in offsets]


RULES: dict[Any, Any] = {aten.scaled_dot_product_attention.default: attention}
