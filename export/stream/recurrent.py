"""The rule for recurrent layers: their hidden states are carried from step to step."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.stream.interpreter import RNN, Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

BIDIRECTIONAL, BATCH_FIRST = 5, 6
"""The places of two arguments after the initial state."""


def recurrent(stream: StreamInterpreter, node: fx.Node, x: Any, initial: Any, *settings: Any) -> tuple[Any, ...]:
    """Run a layer, `aten.lstm.input` or one like it, from the hidden states of the step before.

    A frame before the video, which a delayed input has, and one after its end leave the hidden states as they are. The states are remembered
    less the network's own initial ones, so that they start at zero.

    Returns:
        The output of each frame, and the hidden states, which are of all frames so far.
    """
    if not isinstance(x, Chunk) or any(isinstance(value, Chunk) for value in (initial if isinstance(initial, Sequence) else [initial])):
        raise Unsupported("starts from hidden states that are computed from the frames")
    if settings[BIDIRECTIONAL]:
        raise Unsupported(
            "reads the frames backwards too, from the last frame of the video, which a stream does not have yet: use a layer of one direction"
        )
    if x.axis != (1 if settings[BATCH_FIRST] and x.data.ndim == 3 else 0):
        raise Unsupported("runs along another axis than time")
    (x,) = stream.align([x])
    starts = list(initial) if isinstance(initial, Sequence) else [initial]
    hidden = [start + stream.past.read(start.shape).reshape(start.shape) for start in starts]
    target: Any = node.target
    outputs = []
    for first, stop, share in _runs(stream, x):
        frames = x.data.narrow(x.axis, first, stop - first)
        output, *after = target(frames, hidden if len(hidden) > 1 else hidden[0], *settings)
        hidden = after if share is None else [old + share * (new - old) for old, new in zip(hidden, after, strict=True)]
        outputs.append(output)
    for start, value in zip(starts, hidden, strict=True):
        stream.past.write((value - start).reshape(1, -1))
    stream.sources[node] = x
    return (replace(x, data=torch.cat(outputs, x.axis) if len(outputs) > 1 else outputs[0]), *hidden)


def _runs(stream: StreamInterpreter, x: Chunk) -> list[tuple[int, int, Tensor | None]]:
    """Divide the frames of a step into runs that are in the video as a whole, or outside of it.

    Returns:
        For each the first frame, the end, and 1 for inside, 0 for outside; None if no frame can be outside.
    """
    inside = stream.inside(x, 0, before=x.delay > 0, after=x.pending > 0)
    if inside is None:
        return [(0, x.frames, None)]
    cuts = sorted({0, x.delay % x.frames, x.pending % x.frames, x.frames})
    return [(first, stop, inside[first : first + 1]) for first, stop in itertools.pairwise(cuts)]


def part(stream: StreamInterpreter, node: fx.Node, values: Sequence[Any], index: int) -> Any:
    """One of several results. The hidden states of a recurrent layer, and what a loop carries, are those after the last frame."""
    (source,) = node.all_input_nodes
    if source in stream.sources and not isinstance(values[index], Chunk):
        stream.summarise(source, stream.sources[source])
        stream.after_summary.discard(source)
        stream.after_summary.add(node)
    return values[index]


RULES: dict[Any, Any] = dict.fromkeys(RNN, recurrent)
