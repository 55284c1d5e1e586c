"""The table of the ATen operators that are written as operators of XNNPACK, each with the function that writes it."""

from collections.abc import Callable
from typing import Any

import torch

from clipstep.export.compat.executorch_internals import schema
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets import xnnpack_elementwise as elementwise
from clipstep.export.targets import xnnpack_movement as movement
from clipstep.export.targets import xnnpack_products as products
from clipstep.export.targets import xnnpack_reductions as reductions
from clipstep.export.targets.common import IDENTITY

aten = torch.ops.aten
OPERATORS: dict[Any, Callable[..., Any]] = {
    **{target: elementwise.clamp_writer(target) for target in elementwise.CLAMPS},
    **dict.fromkeys((*IDENTITY, aten.to.dtype), movement.identity),  # A value has been converted before it is given to an operator.
    **dict.fromkeys(RESHAPES, movement.reshape),
    aten.conv2d.default: products.conv2d,
    aten.conv_transpose2d.input: products.conv_transpose2d,
    aten.linear.default: products.linear,
    aten.matmul.default: products.matmul,
    aten.mm.default: products.matmul,
    aten.bmm.default: products.matmul,
    aten.add.Tensor: elementwise.binary(schema.XNNAdd),
    aten.sub.Tensor: elementwise.binary(schema.XNNSubtract),
    aten.rsub.Scalar: lambda graph, a, b: elementwise.binary(schema.XNNSubtract)(graph, b, a),
    aten.mul.Tensor: elementwise.binary(schema.XNNMultiply),
    aten.div.Tensor: elementwise.binary(schema.XNNDiv),
    aten.maximum.default: elementwise.binary(schema.XNNMaximum),
    aten.minimum.default: elementwise.binary(schema.XNNMinimum),
    aten.sigmoid.default: elementwise.unary(schema.XNNSigmoid),
    aten.tanh.default: elementwise.unary(schema.XNNTanh),
    aten.hardsigmoid.default: elementwise.hard_sigmoid,
    aten.hardswish.default: elementwise.unary(schema.XNNHardswish),
    aten.exp.default: elementwise.unary(schema.XNNExp),
    aten.log.default: elementwise.unary(schema.XNNLog),
    aten.sqrt.default: elementwise.unary(schema.XNNSquareRoot),
    aten.rsqrt.default: elementwise.unary(schema.XNNReciprocalSquareRoot),
    aten.abs.default: elementwise.unary(schema.XNNAbs),
    aten.neg.default: elementwise.unary(schema.XNNNegate),
    aten.reciprocal.default: lambda graph, x: elementwise.binary(schema.XNNDiv)(graph, 1.0, x),
    aten.floor.default: elementwise.unary(schema.XNNFloor),
    aten.ceil.default: elementwise.unary(schema.XNNCeiling),
    aten.sin.default: elementwise.unary(schema.XNNSin),
    aten.cos.default: elementwise.unary(schema.XNNCos),
    aten.leaky_relu.default: elementwise.leaky_relu,
    aten.elu.default: elementwise.elu,
    aten.gelu.default: elementwise.gelu,
    aten.silu.default: elementwise.silu,
    aten.pow.Tensor_Scalar: elementwise.power,
    aten.softmax.int: reductions.softmax,
    aten.layer_norm.default: reductions.layer_norm,
    aten.cat.default: movement.cat,
    aten.slice.Tensor: movement.slice_tensor,
    aten.select.int: movement.select,
    aten.expand.default: movement.expand,
    aten.index_select.default: movement.index_select,
    aten.flip.default: movement.flip,
    aten.contiguous.default: movement.contiguous,
    aten.permute.default: movement.permute,
    aten.transpose.int: movement.transpose,
    aten.pad.default: movement.pad,
    aten.constant_pad_nd.default: movement.constant_pad,
    aten.max_pool2d.default: reductions.max_pool2d,
    aten.avg_pool2d.default: reductions.avg_pool2d,
    aten.mean.dim: reductions.mean,
    aten.sum.dim_IntList: reductions.total,
    aten.amax.default: reductions.largest_of,
    aten.amin.default: reductions.smallest_of,
    aten.upsample_bilinear2d.vec: reductions.resize,
}
FLOAT32_ONLY = {aten.conv_transpose2d.input: "XNNPACK has no kernel for it in float16"}
"""The operators that a graph of float16 computes in float32, each with the reason."""
