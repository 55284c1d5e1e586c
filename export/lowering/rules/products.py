"""Convolutions as products of matrices, ``(O, K) (K, pixels)``."""

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.lowering.frames import STYLE, Frames, Triple, concatenate


def products(
    value: Frames, weight: Tensor, bias: Tensor | None, sources: list[list[tuple[int, int]]], plane: dict[str, Any], size: Triple
) -> Frames:  # fmt: skip
    """Each output frame as a product of matrices, ``(O, K) (K, pixels)``: the weights, and what is under each of their places.

    ``size`` is that of an output frame. Its pixels, which are many, are what kernels then compute several of at a time. In a product of
    all taps the bias is the weight of a row of ones.
    """
    under = {source: _under(value.exact[source], weight.shape[3:], plane, size) for source in {s for row in sources for _, s in row}}
    matrices = [weight[:, :, tap].permute(0, 2, 3, 1).reshape(len(weight), -1) for tap in range(weight.shape[2])]
    column = [] if bias is None else [bias[:, None]]
    if STYLE.get().summed_taps:
        items = [reduce(torch.add, [*(torch.mm(matrices[tap], under[source]) for tap, source in row), *column]) for row in sources]
    else:
        ones = [torch.ones(1, math.prod(size)) for _ in column]
        items = [
            torch.mm(concatenate([*(matrices[tap] for tap, _ in row), *column], 1), concatenate([*(under[source] for _, source in row), *ones], 0))
            for row in sources
        ]
    return Frames(tuple(item.reshape(1, len(weight), *size) for item in items))


def _under(frame: Tensor, kernel: Triple, plane: dict[str, Any], size: Triple) -> Tensor:
    """What is under each place of a kernel, row by row of it, each channel: ``(places * C, pixels)``.

    With strides, every s-th row and column go into a plane of their own first, of which each place then is a part.
    """
    stride, padding, dilation = plane["stride"], plane["padding"], plane["dilation"]
    (channels, height, width), (rows, columns) = frame.shape[1:], size
    if tuple(kernel) == tuple(stride) == (1, 1) and (rows, columns) == (height, width):
        return frame.reshape(channels, rows * columns)
    down, right = stride
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    deep, wide = (max(n + span // s, -(-(full + p) // s)) for n, span, s, full, p in zip(size, spans, stride, frame.shape[2:], padding, strict=True))
    padded = F.pad(frame, (padding[1], wide * right - width - padding[1], padding[0], deep * down - height - padding[0]))
    if down == right == 1:
        planes = padded[0]
    elif down == right and not STYLE.get().free_axes:  # Most engines are quicker with an operation made for it.
        planes = F.pixel_unshuffle(padded.permute(1, 0, 2, 3), down).permute(1, 0, 2, 3).reshape(-1, deep, wide)
    else:
        lines = padded.permute(0, 2, 3, 1).reshape(deep, down, wide, right * channels)
        planes = lines.permute(1, 3, 0, 2).contiguous().reshape(-1, deep, wide)
    places = [(*divmod(i * dilation[0], down), *divmod(j * dilation[1], right)) for i in range(kernel[0]) for j in range(kernel[1])]
    parts: list[list[int]] = []
    for y, row, x, column in places:
        first = (row * right + column) * channels
        if parts and parts[-1][1:] == [first, y, x]:
            parts[-1][1] += channels
        else:
            parts.append([first, first + channels, y, x])
    cut = [planes[first:last, y : y + rows, x : x + columns] for first, last, y, x in parts]
    if STYLE.get().free_axes:  # A reshape of what is used once.
        cut = [part.reshape(-1, rows * columns) for part in cut]
    return concatenate(cut, 0).reshape(-1, rows * columns)
