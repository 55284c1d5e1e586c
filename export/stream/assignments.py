"""The rule for assignments to slices, such as `out[:, 1:] = x[:, :-1]`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from clipstep.export.stream.framewise import for_each_frame
from clipstep.export.stream.interpreter import Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Pad = Callable[..., Chunk]


def assigned(
    pad_time: Pad,
    stream: StreamInterpreter,
    node: fx.Node,
    x: Any,
    source: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Chunk:
    """An assignment to a part of each frame, or to all frames but some at the start and the end of the video, which stay as they are in `x`."""
    like: Chunk = x if isinstance(x, Chunk) else source
    if dim % like.data.ndim != like.axis:
        chunks = [value if isinstance(value, Chunk) else replace(like, data=for_each_frame(stream, node, value, like)) for value in (x, source)]
        own, part = stream.align(chunks)
        return replace(own, data=aten.slice_scatter.default(own.data, part.data, dim, start, end, step))
    if step != 1 or not isinstance(source, Chunk):
        raise Unsupported("assigns to every other frame, or the same to some frames")
    value = node.args[0]
    assert isinstance(value, fx.Node)
    length = value.meta["val"].shape[like.axis]
    kept = range(length)[start:end]
    front, back = kept.start, length - kept.stop
    if end is not None and 0 <= end < length:  # Of the number of frames that forward got.
        stream.fixed_length = True
    amounts = [0] * (2 * (source.data.ndim - 1 - source.axis)) + [front, back]
    sizes = [source.frames if axis == source.axis else 1 for axis in range(source.data.ndim)]
    padded, inside = (pad_time(stream, node, part, amounts) for part in (source, replace(source, data=torch.ones(sizes))))
    own = x if isinstance(x, Chunk) else replace(padded, data=for_each_frame(stream, node, x, source))
    padded, inside, own = stream.align([padded, inside, own])
    return replace(padded, data=padded.data + own.data * (1 - inside.data))
