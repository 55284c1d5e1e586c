"""Writes ATen operators as ONNX: one small function for each, in float32 and other types but int8."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets import onnx_axes, onnx_elementwise, onnx_recurrent
from clipstep.export.targets.common import IDENTITY, Pair, check_average, check_padding, check_sizes, clamp_bounds, pair
from clipstep.export.targets.onnx_graph import OnnxGraph
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def conv2d(
    graph: OnnxGraph,
    x: str,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> str:
    inputs = [x, graph.name(weight), *([] if bias is None else [graph.name(bias)])]
    return graph.add("Conv", *inputs, strides=pair(stride), pads=pair(padding) * 2, dilations=pair(dilation), group=groups)


def linear(graph: OnnxGraph, x: str, weight: str | Tensor, bias: Any = None) -> str:
    transposed = graph.constant(weight.t()) if isinstance(weight, Tensor) else graph.add("Transpose", weight, perm=[1, 0])
    product = graph.add("MatMul", x, transposed)
    return product if bias is None else graph.add("Add", product, graph.name(bias))


def silu(graph: OnnxGraph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def clamp(graph: OnnxGraph, x: str, low: float | None = None, high: float | None = None, *, kind: torch.dtype | None = None, **named: float) -> str:
    low, high = clamp_bounds(low, high, **named)
    return graph.add("Clip", x, *("" if bound is None else graph.name(bound, kind) for bound in (low, high)))


def softmax(graph: OnnxGraph, x: str, dim: int, dtype: torch.dtype | None = None) -> str:
    return graph.add("Softmax", x if dtype is None else graph.cast(x, dtype), axis=dim)


def cat(graph: OnnxGraph, values: Sequence[Any], dim: int = 0) -> str:
    return graph.add("Concat", *(graph.name(value) for value in values), axis=dim)


def reshape(graph: OnnxGraph, x: Any, *_: Any, after: Sequence[int]) -> str:
    """A reshape of a reshape is written as one reshape."""
    name = graph.name(x)
    source = graph.reshaped.get(name, name)
    result = graph.add("Reshape", source, graph.constant(list(after)))
    graph.reshaped[result] = source
    return result


def slice_tensor(
    graph: OnnxGraph,
    x: str,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
    *,
    before: Sequence[int],
) -> str:
    """A slice of a slice is written as one slice."""
    first, last, _ = slice(start, end).indices(before[dim])
    if step != 1:
        return graph.add("Slice", x, *(graph.constant([bound]) for bound in (first, last, dim, step)))
    source, cuts = graph.cuts.get(x, (x, {}))
    origin = cuts.get(dim, (0, 0))[0]
    cuts = {**cuts, dim: (origin + first, origin + last)}
    name = graph.add("Slice", source, *(graph.constant(list(bounds)) for bounds in (*zip(*cuts.values(), strict=True), cuts)))
    graph.cuts[name] = (source, cuts)
    return name


def select(graph: OnnxGraph, x: str, dim: int, index: int) -> str:
    return graph.add("Gather", x, graph.constant(torch.tensor(index)), axis=dim)


def permute(graph: OnnxGraph, x: str, dims: Sequence[int]) -> str:
    """A transposition of a transposition is written as one."""
    source, before = graph.transposed.get(x, (x, list(range(len(dims)))))
    order = [before[dim] for dim in dims]
    result = graph.add("Transpose", source, perm=order)
    graph.transposed[result] = (source, order)
    return result


def transpose(graph: OnnxGraph, x: str, first: int, second: int, *, before: Sequence[int]) -> str:
    return permute(graph, x, swapped_axes(len(before), first, second))


def pad(
    graph: OnnxGraph,
    x: str,
    amounts: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
    *,
    before: Sequence[int],
    kind: torch.dtype | None = None,
) -> str:
    check_padding(mode)
    return constant_pad(graph, x, amounts, value or 0.0, before=before, kind=kind)


def constant_pad(
    graph: OnnxGraph, x: str, amounts: Sequence[int], value: float = 0.0, *, before: Sequence[int], kind: torch.dtype | None = None
) -> str:
    """Write a padding with amounts for all axes: with only some, onnxruntime 1.32 breaks the model when it moves a transposition past the Pad."""
    pairs = [*([0, 0] for _ in range(len(before) - len(amounts) // 2)), *(amounts[i : i + 2] for i in range(len(amounts) - 2, -1, -2))]
    pads = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    return graph.add("Pad", x, graph.constant(pads), graph.name(value, kind))


def pixel_unshuffle(graph: OnnxGraph, x: str, factor: int, *, before: Sequence[int]) -> str:
    """Write the operator for an input of one channel; with several, ONNX's SpaceToDepth would give the result's channels in another order."""
    if before[1] > 1:
        raise Unsupported("several channels")
    return graph.add("SpaceToDepth", x, blocksize=factor)


def max_pool2d(
    graph: OnnxGraph,
    x: str,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    before: Sequence[int],
    after: Sequence[int],
    kind: torch.dtype | None = None,
) -> str:
    """Write a max pool. If `ceil_mode` lets a window end after the last element, the padding is enlarged instead: ONNX counts windows otherwise."""
    kernels, paddings, strides, dilations = pair(kernel), pair(padding), pair(stride or kernel), pair(dilation)
    trailing = [*paddings]
    if ceil_mode:
        sizes = zip(after[-2:], before[-2:], kernels, strides, dilations, paddings, strict=True)
        trailing = [max(p, (n - 1) * s + d * (k - 1) + 1 - p - size) for n, size, k, s, d, p in sizes]
    if any(amount >= size for amount, size in zip(trailing, kernels, strict=True)):  # onnxruntime's MaxPool takes no padding of a whole kernel.
        amounts = [amount for both in zip(reversed(paddings), reversed(trailing), strict=True) for amount in both]
        x, paddings, trailing = constant_pad(graph, x, amounts, -math.inf, before=before, kind=kind), (0, 0), [0, 0]
    settings = {"kernel_shape": kernels, "strides": strides, "pads": (*paddings, *trailing), "dilations": dilations, "ceil_mode": 0}
    return graph.add("MaxPool", x, **settings)


def avg_pool2d(
    graph: OnnxGraph,
    x: str,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> str:
    check_average(ceil_mode, divisor)
    settings = {"kernel_shape": pair(kernel), "strides": pair(stride or kernel), "pads": pair(padding) * 2}
    return graph.add("AveragePool", x, **settings, count_include_pad=int(count_padding))


def bilinear(graph: OnnxGraph, x: str, sizes: Any, align_corners: bool, scales: Sequence[float] | None = None, *, after: Sequence[int]) -> str:
    """Write an interpolation by whole factors, which the lowering leaves as it is."""
    check_sizes(scales)
    how = "align_corners" if align_corners else "half_pixel"
    return graph.add("Resize", x, "", "", graph.constant(list(after)), mode="linear", coordinate_transformation_mode=how)


def hardswish(graph: OnnxGraph, x: str) -> str:
    if graph.opset >= 14:
        return graph.add("HardSwish", x)
    return graph.add("Mul", x, hardsigmoid(graph, x))


def hardsigmoid(graph: OnnxGraph, x: str) -> str:
    return graph.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def gelu(graph: OnnxGraph, x: str, approximate: str = "none", *, kind: torch.dtype | None = None) -> str:
    """Write a GELU. Before operator set 20 it is written as a formula: x / 2 * (1 + erf(x / sqrt(2))), with tanh(sqrt(2 / pi) * (x + 0.044715 x^3))
    in place of erf if it is approximated."""
    if graph.opset >= 20:
        return graph.add("Gelu", x, approximate=approximate)
    if approximate == "none":
        inner = graph.add("Erf", graph.add("Mul", x, graph.name(math.sqrt(0.5), kind)))
    else:
        cubed = graph.add("Mul", graph.add("Mul", x, x), x)
        summed = graph.add("Add", x, graph.add("Mul", cubed, graph.name(0.044715, kind)))
        inner = graph.add("Tanh", graph.add("Mul", summed, graph.name(math.sqrt(2 / math.pi), kind)))
    return graph.add("Mul", graph.add("Mul", x, graph.name(0.5, kind)), graph.add("Add", inner, graph.name(1.0, kind)))


def layer_norm(
    graph: OnnxGraph,
    x: str,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *_: Any,
    kind: torch.dtype | None = None,
) -> str:
    """Write a layer norm. Before operator set 17 it is written as a formula: (x - mean) / sqrt(variance + epsilon) * weight + bias."""
    axes = list(range(-len(shape), 0))
    scale, shift = (value if value is not None else torch.full(tuple(shape), number, dtype=kind) for value, number in ((weight, 1.0), (bias, 0.0)))
    if graph.opset >= 17:
        return graph.add("LayerNormalization", x, graph.name(scale), graph.name(shift), axis=axes[0], epsilon=epsilon)
    mean = onnx_axes.reduction("ReduceMean")
    centred = graph.add("Sub", x, mean(graph, x, axes, True))
    variance = mean(graph, graph.add("Mul", centred, centred), axes, True)
    normalised = graph.add("Div", centred, graph.add("Sqrt", graph.add("Add", variance, graph.name(epsilon, kind))))
    return graph.add("Add", graph.add("Mul", normalised, graph.name(scale)), graph.name(shift))


def cast(graph: OnnxGraph, x: str, dtype: torch.dtype) -> str:
    return graph.cast(x, dtype)


def conv_transpose2d(
    graph: OnnxGraph,
    x: str,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> str:
    inputs = [x, graph.name(weight), *([] if bias is None else [graph.name(bias)])]
    settings = {"strides": pair(stride), "pads": pair(padding) * 2, "output_padding": pair(output_padding), "dilations": pair(dilation)}
    return graph.add("ConvTranspose", *inputs, group=groups, **settings)


def nearest(graph: OnnxGraph, x: str, *_: Any, after: Sequence[int]) -> str:
    """Write an interpolation by whole factors, which the lowering leaves as it is."""
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", x, "", "", graph.constant(list(after)), mode="nearest", **how)


def identity(_: OnnxGraph, x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


OPERATORS: dict[Any, Callable[..., Any]] = {
    **onnx_elementwise.OPERATORS,
    **onnx_axes.OPERATORS,
    **onnx_recurrent.OPERATORS,
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.upsample_nearest2d.vec: nearest,
    aten.conv2d.default: conv2d,
    aten.linear.default: linear,
    aten.matmul.default: onnx_elementwise.operator("MatMul"),
    aten.mm.default: onnx_elementwise.operator("MatMul"),
    aten.bmm.default: onnx_elementwise.operator("MatMul"),
    aten.relu6.default: lambda graph, x: clamp(graph, x, 0.0, 6.0),
    aten.hardtanh.default: lambda graph, x, low=-1.0, high=1.0: clamp(graph, x, low, high),
    aten.clamp.default: clamp,
    aten.hardswish.default: hardswish,
    aten.hardsigmoid.default: hardsigmoid,
    aten.leaky_relu.default: lambda graph, x, slope=0.01: graph.add("LeakyRelu", x, alpha=float(slope)),
    aten.elu.default: lambda graph, x, alpha=1.0: graph.add("Elu", x, alpha=float(alpha)),
    aten.gelu.default: gelu,
    aten.silu.default: silu,
    aten.softmax.int: softmax,
    aten.layer_norm.default: layer_norm,
    aten.cat.default: cat,
    aten.slice.Tensor: slice_tensor,
    aten.select.int: select,
    aten.permute.default: permute,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: constant_pad,
    aten.upsample_bilinear2d.vec: bilinear,
    aten.transpose.int: transpose,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.max_pool2d.default: max_pool2d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.to.dtype: cast,
    **dict.fromkeys(IDENTITY, identity),
    **dict.fromkeys(RESHAPES, reshape),
}
