"""Writes interpolation, adaptive pools and sampling of images as operations of ML Programs.

Where Core ML has no operation with PyTorch's positions of samples, a separable operator is written as two products with constant matrices.
They are read off PyTorch's own operator, which is given the identity along one axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from coremltools.converters.mil import Builder as mb
from torch import Tensor

from clipstep.export.targets.common import pair
from clipstep.export.targets.coreml_movement import slice_tensor
from clipstep.export.targets.coreml_values import constant
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
Function = Callable[..., Any]


def separable(x: Any, rows: Tensor, columns: Tensor) -> Any:
    """Write `rows @ x @ columns.T`, with constants `(H', H)` and `(W', W)`; a matrix that picks single elements as a gather."""
    for axis, matrix in ((x.rank - 2, rows), (x.rank - 1, columns)):
        if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix))):
            continue
        if bool((matrix.amax(1) == 1).all()) and int(matrix.count_nonzero()) == len(matrix):
            x = mb.gather(x=x, indices=matrix.argmax(1).int().numpy(), axis=axis)
        elif axis == x.rank - 1:
            x = mb.matmul(x=x, y=constant(matrix.T.contiguous()))
        else:
            x = mb.matmul(x=constant(matrix), y=x)
    return x


def matrix_of(function: Callable[[Tensor], Tensor], size: int, wanted: int, axis: int) -> Tensor:
    """Return the matrix `(wanted, size)` of a linear function of images along one axis: 2 for rows, 3 for columns."""
    shape = [1, size, 1, 1]
    shape[axis] = size
    return function(torch.eye(size).reshape(shape)).reshape(size, wanted).T.contiguous()


def interpolation(operator: Any, native: str | None = None) -> Function:
    """Return a function that writes an interpolation over rows and columns, `native` if each grows by a whole factor and Core ML has an operation
    for it."""

    def write(x: Any, sizes: Sequence[int] | None, *settings: Any, before: Sequence[int], after: Sequence[int]) -> Any:
        *align, factors = settings
        (height, width), (new_height, new_width) = before[-2:], after[-2:]
        aligned = bool(align and align[0])
        exact = factors is None or all(size * factor == new for size, factor, new in zip(before[2:], factors, after[2:], strict=True))
        if native == "bilinear" and (exact or aligned):
            mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS"
            return mb.resize_bilinear(x=x, target_size_height=new_height, target_size_width=new_width, sampling_mode=mode)
        if native == "nearest" and new_height % height == 0 and new_width % width == 0:
            return mb.upsample_nearest_neighbor(x=x, scale_factor_height=new_height // height, scale_factor_width=new_width // width)

        def along(axis: int, wanted: int) -> Tensor:
            given = None if factors is None else [factors[0] if axis == 2 else 1.0, factors[1] if axis == 3 else 1.0]
            size = [wanted if axis == 2 else 1, wanted if axis == 3 else 1]
            return matrix_of(lambda eye: operator(eye, None if given else size, *align, given), before[axis], wanted, axis)

        return separable(x, along(2, new_height), along(3, new_width))

    return write


def interpolation_of_rows(operator: Any) -> Function:
    """Return a function that writes an interpolation of values `(N, C, L)` along their last axis."""

    def write(x: Any, sizes: Sequence[int] | None, *settings: Any, after: Sequence[int]) -> Any:
        *align, factors = settings
        size = x.shape[-1]
        matrix = operator(torch.eye(size)[None], None if factors else [after[-1]], *align, factors)[0].T.contiguous()
        return separable(x, torch.eye(x.shape[-2]), matrix)

    return write


def adaptive_average(x: Any, size: Sequence[int], *, after: Sequence[int]) -> Any:
    height, width = after[-2:]

    def along(axis: int, wanted: int) -> Tensor:
        shape = [wanted if axis == 2 else 1, wanted if axis == 3 else 1]
        return matrix_of(lambda eye: aten.adaptive_avg_pool2d.default(eye, shape), x.shape[axis - 4], wanted, axis)

    return separable(x, along(2, height), along(3, width))


def adaptive_average_of_rows(x: Any, size: Sequence[int], *, after: Sequence[int]) -> Any:
    matrix = aten.adaptive_avg_pool1d.default(torch.eye(x.shape[-1])[None], [after[-1]])[0].T.contiguous()
    return separable(x, torch.eye(x.shape[-2]), matrix)


def adaptive_maximum(x: Any, size: Sequence[int]) -> list[Any]:
    """Write the maximum of each window, first along the rows, then along the columns. Its positions are refused when they are used."""
    for axis, wanted in zip((x.rank - 2, x.rank - 1), pair(size), strict=True):
        given = x.shape[axis]
        bounds = [(i * given // wanted, -(-(i + 1) * given // wanted)) for i in range(wanted)]
        windows = [mb.reduce_max(x=slice_tensor(x, axis, first, last), axes=[axis], keep_dims=True) for first, last in bounds]
        x = mb.concat(values=windows, axis=axis) if len(windows) > 1 else windows[0]
    return [x]


def grid_sampler(x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
    """Write a sampling of images at computed places; `mode` 0 is bilinear and 1 nearest, `padding` 0 is zeros, 1 the border and 2 reflection."""
    if mode == 2:
        raise Unsupported("bicubic sampling")
    if padding == 2:
        raise Unsupported("reflection at the border")
    return mb.resample(
        x=x,
        coordinates=grid,
        sampling_mode=("bilinear", "nearest")[mode],
        padding_mode=("constant", "border")[padding],
        padding_value=0.0,
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=align_corners,
    )


OPERATORS: dict[Any, Function] = {
    aten._adaptive_avg_pool2d.default: adaptive_average,
    aten._upsample_nearest_exact1d.vec: interpolation_of_rows(aten._upsample_nearest_exact1d.vec),
    aten._upsample_nearest_exact2d.vec: interpolation(aten._upsample_nearest_exact2d.vec),
    aten.adaptive_avg_pool1d.default: adaptive_average_of_rows,
    aten.adaptive_avg_pool2d.default: adaptive_average,
    aten.adaptive_max_pool2d.default: adaptive_maximum,
    aten.grid_sampler_2d.default: grid_sampler,
    aten.upsample_bicubic2d.vec: interpolation(aten.upsample_bicubic2d.vec),
    aten.upsample_bilinear2d.vec: interpolation(aten.upsample_bilinear2d.vec, "bilinear"),
    aten.upsample_linear1d.vec: interpolation_of_rows(aten.upsample_linear1d.vec),
    aten.upsample_nearest1d.vec: interpolation_of_rows(aten.upsample_nearest1d.vec),
    aten.upsample_nearest2d.vec: interpolation(aten.upsample_nearest2d.vec, "nearest"),
}
