"""Writes a lowered graph as an ML Program: one small function for each ATen operator.

coremltools' own converter would export the graph once more and run a hundred passes over it, which takes four times as long.
"""

from collections.abc import Callable, Sequence
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from torch import fx

from clipstep.export.compat.coremltools_internals import Function, Program, types
from clipstep.export.lowering.lazy import swapped_axes
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets.common import IDENTITY, Pair, check_result, check_scales, clamp_bounds, pair, write_operator
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten


def ml_program(module: fx.GraphModule, input_names: Sequence[str], output_names: Sequence[str], target: Any = ct.target.iOS17) -> Program:
    """Write the program of a graph, whose inputs are float32.

    Raises:
        Unsupported: it has an operator, or a setting of one, that is not written here.
    """
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    inputs = {
        name: mb.placeholder(shape=tuple(node.meta["val"].shape), dtype=types.fp32) for name, node in zip(input_names, placeholders, strict=True)
    }
    program = Program()
    with Function(inputs, opset_version=target) as function:
        found: dict[fx.Node, Any] = dict(zip(placeholders, function.inputs.values(), strict=True))
        outputs: list[Any] = []
        for node in module.graph.nodes:
            if node.op == "get_attr":
                found[node] = mb.const(val=getattr(module, node.target).detach().contiguous().numpy(), name=node.name)
            elif node.op == "output":
                outputs = [_named(found[source], name) for source, name in zip(node.args[0], output_names, strict=True)]
            elif node.op == "call_function":
                found[node] = write_operator(OPERATORS, node, [], found)
        function.set_outputs(outputs)
    program.add_function("main", function)
    return program


def _named(x: Any, name: str) -> Any:
    """Return the value as an output of that name: renamed if it is an operation's result; a copy if it is an input, a constant or an output
    already."""
    if x.op is None or x.val is not None or x.op.name != x.name:
        return mb.identity(x=x, name=name)
    x.name = name
    return x


def reshape(x: Any, *_: Any, after: Sequence[int]) -> Any:
    return mb.reshape(x=x, shape=list(after))


def number(value: Any) -> Any:
    """Return a value of the program as it is, and a number as float32."""
    return np.float32(value) if isinstance(value, int | float) else value


def symmetric(padding: Pair) -> list[int]:
    """Return the padding in MIL's order: before and after the rows, before and after the columns."""
    rows, columns = pair(padding)
    return [rows, rows, columns, columns]


def _check_constant(*values: Any) -> None:
    if any(value is not None and value.val is None for value in values):
        raise Unsupported("weights that are computed")


def conv2d(x: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1) -> Any:
    _check_constant(weight, bias)
    settings = {"strides": pair(stride), "pad_type": "custom", "pad": symmetric(padding), "dilations": pair(dilation), "groups": groups}
    return mb.conv(x=x, weight=weight, **settings, **({} if bias is None else {"bias": bias}))


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    _check_constant(weight, bias)
    return mb.linear(x=x, weight=weight, **({} if bias is None else {"bias": bias}))


def unary(operation: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    return lambda x: operation(x=x, **settings)


def binary(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: operation(x=number(x), y=number(y))


def hard_sigmoid(x: Any) -> Any:
    return mb.sigmoid_hard(x=x, alpha=np.float32(1 / 6), beta=np.float32(0.5))


def power(x: Any, exponent: float) -> Any:
    return mb.mul(x=x, y=x) if exponent == 2 else mb.pow(x=x, y=number(exponent))


def clamp(x: Any, low: float | None = None, high: float | None = None, **named: float) -> Any:
    low, high = clamp_bounds(low, high, **named)
    if high is None:
        return mb.relu(x=x) if low == 0 else mb.maximum(x=x, y=number(low))
    return mb.minimum(x=x, y=number(high)) if low is None else mb.clip(x=x, alpha=number(low), beta=number(high))


def softmax(x: Any, dim: int, dtype: torch.dtype | None = None) -> Any:
    check_result(dtype)
    return mb.softmax(x=x, axis=dim)


def layer_norm(x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, epsilon: float = 1e-5, *_: Any) -> Any:
    if weight is None and bias is not None:  # coremltools takes a shift only beside a scale.
        weight = np.ones(tuple(shape), np.float32)
    given = {name: value for name, value in (("gamma", weight), ("beta", bias)) if value is not None}
    return mb.layer_norm(x=x, axes=list(range(-len(shape), 0)), epsilon=epsilon, **given)


def cat(values: Sequence[Any], dim: int = 0) -> Any:
    return mb.concat(values=list(values), axis=dim)


def slice_tensor(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    first, last, _ = slice(start, end).indices(x.shape[dim])
    begins, ends, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    begins[dim], ends[dim], steps[dim] = first, last, step
    return mb.slice_by_index(x=x, begin=begins, end=ends, stride=steps)


def select(x: Any, dim: int, index: int, *, after: Sequence[int]) -> Any:
    return reshape(slice_tensor(x, dim, index % x.shape[dim], index % x.shape[dim] + 1), after=after)


def permute(x: Any, dims: Sequence[int]) -> Any:
    return mb.transpose(x=x, perm=list(dims))


def transpose(x: Any, first: int, second: int) -> Any:
    return permute(x, swapped_axes(x.rank, first, second))


def pad(x: Any, amounts: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    if mode != "constant":
        raise Unsupported("a `mode` other than `constant`")
    return constant_pad(x, amounts, value or 0.0)


def constant_pad(x: Any, amounts: Sequence[int], value: float = 0.0) -> Any:
    if min(amounts) < 0:
        raise Unsupported("negative amounts")
    pairs = [amounts[i : i + 2] for i in range(len(amounts) - 2, -1, -2)]
    return mb.pad(x=x, pad=[amount for both in pairs for amount in both], mode="constant", constant_val=number(value))


def max_pool2d(
    x: Any, kernel: Pair, stride: Pair = (), padding: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False, *, after: Sequence[int]
) -> Any:
    """Write a max pool. If `ceil_mode` lets a window end after the last element, the padding is enlarged instead; padding is never the maximum."""
    if pair(dilation) != (1, 1):
        raise Unsupported("`dilation`")
    kernels, strides, paddings = pair(kernel), pair(stride or kernel), pair(padding)
    trailing = [max(p, (n - 1) * s + k - p - size) for n, s, k, p, size in zip(after[2:], strides, kernels, paddings, x.shape[2:], strict=True)]
    pads = [paddings[0], trailing[0], paddings[1], trailing[1]]
    return mb.max_pool(x=x, kernel_sizes=kernels, strides=strides, pad_type="custom", pad=pads)


def avg_pool2d(
    x: Any, kernel: Pair, stride: Pair = (), padding: Pair = 0, ceil_mode: bool = False, count_padding: bool = True, divisor: int | None = None
) -> Any:
    if ceil_mode:
        raise Unsupported("`ceil_mode`")
    if divisor:
        raise Unsupported("`divisor_override`")
    return mb.avg_pool(
        x=x,
        kernel_sizes=pair(kernel),
        strides=pair(stride or kernel),
        pad_type="custom",
        pad=symmetric(padding),
        exclude_padding_from_average=not count_padding,
    )


def resize(x: Any, sizes: Any, align_corners: bool, scales: Sequence[float] | None = None, *, before: Sequence[int], after: Sequence[int]) -> Any:
    check_scales(scales, align_corners, before, after)
    height, width = after[2:]
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS"
    return mb.resize_bilinear(x=x, target_size_height=height, target_size_width=width, sampling_mode=mode)


def reduction(operation: Callable[..., Any]) -> Callable[..., Any]:
    def write(x: Any, dims: Any = None, keep: bool = False, dtype: torch.dtype | None = None) -> Any:
        check_result(dtype)
        axes = [dims] if isinstance(dims, int) else list(dims or range(x.rank))
        return operation(x=x, axes=axes, keep_dims=keep)

    return write


def cast(x: Any, dtype: torch.dtype) -> Any:
    check_result(dtype)
    return x


def identity(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


OPERATORS: dict[Any, Callable[..., Any]] = {
    aten.conv2d.default: conv2d,
    aten.linear.default: linear,
    aten.matmul.default: binary(mb.matmul),
    aten.mm.default: binary(mb.matmul),
    aten.bmm.default: binary(mb.matmul),
    aten.add.Tensor: binary(mb.add),
    aten.sub.Tensor: binary(mb.sub),
    aten.rsub.Scalar: lambda x, y: mb.sub(x=number(y), y=x),
    aten.mul.Tensor: binary(mb.mul),
    aten.div.Tensor: binary(mb.real_div),
    aten.maximum.default: binary(mb.maximum),
    aten.minimum.default: binary(mb.minimum),
    aten.relu.default: unary(mb.relu),
    aten.relu6.default: unary(mb.relu6),
    aten.hardtanh.default: lambda x, low=-1.0, high=1.0: clamp(x, low, high),
    aten.clamp.default: clamp,
    aten.clamp_min.default: clamp,
    aten.clamp_max.default: lambda x, high: clamp(x, None, high),
    aten.sigmoid.default: unary(mb.sigmoid),
    aten.hardsigmoid.default: hard_sigmoid,
    aten.tanh.default: unary(mb.tanh),
    aten.hardswish.default: lambda x: mb.mul(x=x, y=hard_sigmoid(x)),
    aten.exp.default: unary(mb.exp),
    aten.log.default: unary(mb.log),
    aten.sqrt.default: unary(mb.sqrt),
    aten.rsqrt.default: unary(mb.rsqrt),
    aten.abs.default: unary(mb.abs),
    aten.neg.default: lambda x: mb.mul(x=x, y=np.float32(-1)),
    aten.leaky_relu.default: lambda x, slope=0.01: mb.leaky_relu(x=x, alpha=np.float32(slope)),
    aten.elu.default: lambda x, alpha=1.0: mb.elu(x=x, alpha=np.float32(alpha)),
    aten.gelu.default: lambda x, approximate="none": mb.gelu(x=x, mode="EXACT" if approximate == "none" else "TANH_APPROXIMATION"),
    aten.silu.default: unary(mb.silu),
    aten.pow.Tensor_Scalar: power,
    aten.softmax.int: softmax,
    aten.layer_norm.default: layer_norm,
    aten.cat.default: cat,
    aten.slice.Tensor: slice_tensor,
    aten.select.int: select,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: constant_pad,
    aten.upsample_bilinear2d.vec: resize,
    aten.max_pool2d.default: max_pool2d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.mean.dim: reduction(mb.reduce_mean),
    aten.sum.dim_IntList: reduction(mb.reduce_sum),
    aten.to.dtype: cast,
    **dict.fromkeys(IDENTITY, identity),
    **dict.fromkeys(RESHAPES, reshape),
}
