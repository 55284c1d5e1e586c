"""The rule for `torch.einsum`: products of values of single frames, and of constants that are the same for all of them."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from clipstep.export.stream.framewise import DIFFERS, FRAMES_BY_FRAMES
from clipstep.export.stream.interpreter import Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def einsum(stream: StreamInterpreter, node: fx.Node, equation: str, operands: list[Any], **_: Any) -> Chunk:
    """A product of operands; the index of time has to be one of the result's.

    As in graph convolutions: in `nkctv,kvw->nctw` each frame `t` is multiplied by the same matrix of joints.
    """
    inputs, output = _indices(equation, operands)
    chunks = stream.align([operand for operand in operands if isinstance(operand, Chunk)])
    times = {indices[x.axis] for x, indices in zip(operands, inputs, strict=True) if isinstance(x, Chunk)}
    if len(times) > 1:
        raise Unsupported(FRAMES_BY_FRAMES)
    (time,) = times
    if time not in output:
        raise Unsupported("sums over time, that is over frames that are still to come")
    for operand, indices in zip(operands, inputs, strict=True):
        if not isinstance(operand, Chunk) and time in indices and operand.shape[indices.index(time)] > 1:
            raise Unsupported(DIFFERS)
    values = iter(chunks)
    data = torch.einsum(equation, *(next(values).data if isinstance(operand, Chunk) else operand for operand in operands))
    return replace(chunks[0], data=data, axis=output.index(time))


def _indices(equation: str, operands: list[Any]) -> tuple[list[list[str]], list[str]]:
    """Return the index of each axis of each operand and of the result; axes in an ellipsis are counted from its end."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    ranks = [x.data.ndim if isinstance(x, Chunk) else x.ndim for x in operands]
    inputs = [_spread(indices, rank) for indices, rank in zip(given.split(","), ranks, strict=True)]
    every = [index for indices in inputs for index in indices]
    dots = sorted({index for index in every if index.startswith(".")}, key=lambda index: -int(index[1:]))
    if not arrow:
        return inputs, [*dots, *sorted({index for index in every if every.count(index) == 1 and index not in dots})]
    before, ellipsis, after = result.partition("...")
    return inputs, [*before, *(dots if ellipsis else []), *after]


def _spread(indices: str, rank: int) -> list[str]:
    before, ellipsis, after = indices.partition("...")
    count = rank - len(before) - len(after)
    return [*before, *(f".{place}" for place in range(count, 0, -1) if ellipsis), *after]


RULES: dict[Any, Any] = {aten.einsum.default: einsum}
